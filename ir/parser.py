"""Reads the textual IR: `parse` turns what `printer.print_module` writes back into a Module.

lark's LALR parser (grammar.lark) makes the tree; `_Reader` gives it meaning: names become values, each defined once
in its function and visible in its own region and below. Whether the module obeys the op table is `verify`'s business.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NoReturn

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from .core import Attr, Function, Inlined, Module, Op, Region, Value
from .errors import ParseError
from .span import Span, underline
from .types import KINDS, Type

_Tree = Tree[Token]
_ESCAPED = {"\\": "\\", '"': '"', "n": "\n", "r": "\r", "t": "\t"}
_ESCAPE = re.compile(r'\\(?:([\\"nrt]|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})|.|$)')
_CONSTANTS = {"none": None, "true": True, "false": False}
_WORDS = {
    "SYMBOL": "a function such as `@main`",
    "VALUE": "a value such as `%x`",
    "OPERATION": "an op such as `prompt.append`",
    "NAME": "a name",
    "TYPE_NAME": "a type such as `prompt`",
    "REGION_WORD": "`else`, `do`, `test`, `except` or `finally`",
    "NUMBER": "a number",
    "RANGE": "a range of line:column such as `:3:4-3:9`",
    "STRING": "a string",
    "BLOCK": "a block of `| ` lines",
    "$END": "the end of the text",
}


def parse(text: str, file: str = "") -> Module:
    """The module that the text describes; raises ParseError, which names `file` where one is given."""
    text = text.replace("\r\n", "\n")
    reader = _Reader(text, file)
    try:
        return reader.module(_lark().parse(text))
    except UnexpectedInput as error:
        reader.refuse(error)
    except RecursionError:
        raise ParseError(f"{file or 'the text'} nests regions or values too deeply to be read") from None


@cache
def _lark() -> Lark:
    return Lark.open("grammar.lark", rel_to=__file__, parser="lalr", maybe_placeholders=False)


class _Reader:
    """Turns lark's tree into a module; `visible` and `defined_at` are those of the function at hand."""

    def __init__(self, text: str, file: str) -> None:
        self.lines = text.split("\n")
        self.file = file
        self.visible: dict[str, Value] = {}
        self.defined_at: dict[str, Token] = {}

    def module(self, tree: _Tree) -> Module:
        module = Module({}, self.symbol(_token(tree, "SYMBOL")))
        for declaration in _parts(tree):
            read = self.function if declaration.data == "function" else self.table
            read(module, declaration)
        return module

    def table(self, module: Module, tree: _Tree) -> None:
        """Add a `source`, `import` or `constant` line to its table."""
        key_tree, value_tree = _parts(tree)
        name, key, value = str(tree.data), self.key(key_tree), self.attr(value_tree)
        table = {"source": module.sources, "import": module.imports, "constant": module.constants}[name]
        if name != "constant" and not isinstance(value, str):
            self.fail(_token(key_tree), f"the {name} of {key} must be a string")
        if key in table:
            self.fail(_token(key_tree), f"there is already a {name} line for {key}")
        table[key] = value

    def function(self, module: Module, tree: _Tree) -> None:
        symbol = _token(tree, "SYMBOL")
        name = self.symbol(symbol)
        if name in module.functions:
            self.fail(symbol, f"the function @{name} is already defined")
        self.visible, self.defined_at = {}, {}
        parameters = _parts(tree, "parameter")
        names = [self.parameter_name(parameter) for parameter in parameters]
        body = Region([self.argument(parameter) for parameter in parameters])
        body.ops = [self.op(op) for op in _parts(tree, "op")]
        module.functions[name] = Function(name, body, names, self.location(tree))

    def parameter_name(self, tree: _Tree) -> str:
        keys = _parts(tree, "key")
        return self.key(keys[0]) if keys else _token(tree, "VALUE")[1:]

    def argument(self, tree: _Tree) -> Value:
        return self.define(_token(tree, "VALUE"), self.type(_parts(tree, "type")[0]))

    def op(self, tree: _Tree) -> Op:
        operation = _token(tree, "OPERATION")
        names, operands = (_tokens(part) for part in _parts(tree)[:2])
        types = [self.type(type_) for part in _parts(tree, "types") for type_ in _parts(part)]
        if len(types) != len(names):
            self.fail(operation, f"{operation} has {len(names)} names before `=`, but {len(types)} types after `:`")
        made = Op(str(operation), [self.use(name) for name in operands])
        for attributes in _parts(tree, "attributes"):
            made.attrs = self.pairs(attributes)
        made.regions = [self.region(region) for region in _parts(tree, "region")]
        made.results = [self.define(name, type_) for name, type_ in zip(names, types, strict=True)]
        made.span = self.location(tree)
        made.inlined = tuple(self.inlined(call) for call in _parts(tree, "inlined"))
        return made

    def region(self, tree: _Tree) -> Region:
        outer = dict(self.visible)
        region = Region([self.argument(argument) for argument in _parts(tree, "argument")])
        region.ops = [self.op(op) for op in _parts(tree, "op")]
        self.visible = outer
        return region

    def define(self, token: Token, type_: Type) -> Value:
        if token in self.defined_at:
            self.fail(token, f"{token} is already defined in line {self.defined_at[token].line}")
        # A number is the printer's name for a value that has none.
        value = Value(type_, "" if re.fullmatch(r"%\d+", token) else token[1:])
        self.defined_at[token] = token
        self.visible[token] = value
        return value

    def use(self, token: Token) -> Value:
        if token in self.visible:
            return self.visible[token]
        if token in self.defined_at:
            line = self.defined_at[token].line
            self.fail(token, f"{token} is not visible here: the region that defines it, in line {line}, has ended")
        self.fail(token, f"{token} is not defined before this use")

    def type(self, tree: _Tree) -> Type:
        token, elements = _token(tree, "TYPE_NAME"), _parts(tree, "type")
        if token not in KINDS or (token == "list") != bool(elements):
            self.fail(token, f"there is no type {token}; the types are prompt, text, obj, cell and list<...>")
        return Type(str(token), self.type(elements[0]) if elements else None)

    def inlined(self, tree: _Tree) -> Inlined:
        return Inlined(self.symbol(_token(tree, "SYMBOL")), self.location(tree))

    def location(self, tree: _Tree) -> Span | None:
        for part in _parts(tree, "location"):
            file, numbers = _tokens(part)
            line, column, end_line, end_column = map(int, re.split("[:-]", numbers[1:]))
            return Span(self.unquote(file), line, column, end_line, end_column)
        return None

    def pairs(self, tree: _Tree) -> dict[str, Attr]:
        found: dict[str, Attr] = {}
        for pair in _parts(tree, "pair"):
            key_tree, value_tree = _parts(pair)
            key = self.key(key_tree)
            if key in found:
                self.fail(_token(key_tree), f"{key} is already given")
            found[key] = self.attr(value_tree)
        return found

    def attr(self, tree: _Tree) -> Attr:
        if tree.data in _CONSTANTS:
            return _CONSTANTS[str(tree.data)]
        if tree.data == "list":
            return [self.attr(item) for item in _parts(tree)]
        if tree.data == "dict":
            return self.pairs(tree)
        token = _token(tree)
        if token.type == "BLOCK":
            return "\n".join(_unblock(line) for line in token.split("\n"))
        return self.unquote(token) if token.type == "STRING" else self.number(token)

    def number(self, token: Token) -> int | float:
        try:
            if "0x" in token:
                return int(token, 16)
            return float(token) if re.search("[.ein]", token) else int(token)
        except ValueError as error:
            self.fail(token, str(error))

    def key(self, tree: _Tree) -> str:
        token = _token(tree)
        return self.unquote(token) if token.type == "STRING" else str(token)

    def symbol(self, token: Token) -> str:
        return self.unquote(token, 1) if token[1] == '"' else token[1:]

    def unquote(self, token: Token, start: int = 0) -> str:
        """The string that a quoted token stands for; its opening quote is at `start`."""

        def replace(match: re.Match[str]) -> str:
            if match[1] is None:
                self.fail(token, f"there is no escape {match[0]}; write a backslash as \\\\")
            return _ESCAPED[match[1]] if match[1] in _ESCAPED else self.character(token, match[1][1:])

        return _ESCAPE.sub(replace, token[start + 1 : -1])

    def character(self, token: Token, digits: str) -> str:
        code = int(digits, 16)
        if code > 0x10FFFF:
            self.fail(token, f"there is no character of the code {digits}")
        return chr(code)

    def refuse(self, error: UnexpectedInput) -> NoReturn:
        """Raise the ParseError for what lark could not read."""
        if isinstance(error, UnexpectedToken):
            if error.token.type == "$END":
                message = f"the text ends where {_expected(error.accepts)} should follow"
                self.fail_at(len(self.lines), len(self.lines[-1]), 1, message)
            self.fail(error.token, f"expected {_expected(error.accepts)}, not `{_first_line(error.token)}`")
        assert isinstance(error, UnexpectedCharacters)
        found = self.lines[error.line - 1][error.column - 1]
        self.fail_at(error.line, error.column - 1, 1, f"expected {_expected(error.allowed)}, not `{found}`")

    def fail(self, token: Token, message: str) -> NoReturn:
        assert token.line is not None and token.column is not None
        self.fail_at(token.line, token.column - 1, len(_first_line(token)), message)

    def fail_at(self, line: int, column: int, length: int, message: str) -> NoReturn:
        """Raise the error with the text's line and carets; `line` counts from 1, `column` from 0."""
        place = f"{self.file}:{line}:{column + 1}" if self.file else f"line {line}, column {column + 1}"
        carets = underline(self.lines[line - 1], column, column + length)
        raise ParseError("\n".join([place, *carets, f"error: {message}"]))


def _parts(tree: _Tree, name: str | None = None) -> list[_Tree]:
    """The subtrees of a tree, of one kind if `name` is given."""
    return [child for child in tree.children if isinstance(child, Tree) and name in (None, child.data)]


def _tokens(tree: _Tree) -> list[Token]:
    return [child for child in tree.children if isinstance(child, Token)]


def _token(tree: _Tree, kind: str | None = None) -> Token:
    return next(token for token in _tokens(tree) if kind in (None, token.type))


def _unblock(line: str) -> str:
    """The text of a block's line: what follows the bar and one space."""
    text = line.lstrip(" \t")[1:]
    return text[1:] if text.startswith(" ") else text


def _first_line(token: Token) -> str:
    return token.split("\n")[0]


def _expected(names: set[str] | None) -> str:
    words = sorted(_in_words(name) for name in names or ())
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _in_words(name: str) -> str:
    if name in _WORDS:
        return _WORDS[name]
    return f"`{_lark().get_terminal(name).pattern.value}`"
