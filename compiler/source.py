"""From a Python function to its syntax tree, with the true line and column of every node.

Source is found through `inspect` and `linecache`, so functions from files, the REPL and notebooks all work. An indented
function is parsed under `if True:` rather than dedented, so that columns are the file's and strings stay as they are.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from types import FunctionType

from msgspec.structs import replace

from ..ir.errors import CompileError
from ..ir.private import mangled, private_prefix
from ..ir.span import Span
from ..ir.syntax import children, walk

Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Source:
    """A function's syntax tree; node positions are those of `file`.

    in_texts: identities of the nodes inside f-strings, whose positions Python does not always tell right.
    """

    file: str
    tree: Definition
    in_texts: frozenset[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        texts = (node for node in walk(self.tree) if isinstance(node, ast.JoinedStr))
        inner = frozenset(id(node) for text in texts for node in walk(text) if node is not text)
        object.__setattr__(self, "in_texts", inner)

    def span(self, node: ast.AST) -> Span:
        """The span of a node of this function; that of a definition inside it begins with its decorators."""
        span = Span.from_node(node, self.file)
        return span if node is self.tree else replace(span, line=self._first_line(node))

    def _first_line(self, node: ast.AST) -> int:
        line: int = node.lineno  # type: ignore[attr-defined]
        if decorators := getattr(node, "decorator_list", None):
            line = decorators[0].lineno
            while not linecache.getline(self.file, line).lstrip().startswith("@"):
                line -= 1
        return line

    def segment(self, nodes: Sequence[ast.AST]) -> str:
        """The source text from the first node to the last, dedented where that cannot change a string literal."""
        if id(nodes[0]) in self.in_texts:
            return ast.unparse(nodes[0])
        text = b"".join(self._lines(nodes)).decode()
        return text if any(map(_has_long_string, nodes)) else textwrap.dedent(text)

    def rewritten(self, node: ast.AST, names: Collection[str]) -> str:
        """The text of a node in which some names stand for what was at their places; lines are kept where they can be.

        Errors in code of several lines can then point at the right one.
        """
        stand_ins = [n for n in walk(node) if isinstance(n, ast.Name) and n.id in names]
        on_one_line = node.lineno == node.end_lineno  # type: ignore[attr-defined]
        if on_one_line or id(node) in self.in_texts:
            return ast.unparse(node)
        lines = self._lines([node])
        for name in sorted(stand_ins, key=lambda n: (n.lineno, n.col_offset), reverse=True):
            _replace(lines, name, node.lineno)  # type: ignore[attr-defined]
        text = b"".join(lines).decode()
        text = text if _has_long_string(node) else textwrap.dedent(text)
        return text if _says(text, node) else ast.unparse(node)

    def keeps_lines(self, node: ast.stmt, part: ast.expr) -> bool:
        """Whether `rewritten` surely keeps a statement's lines if names stand for what is in this part of it."""
        return self.segment([part]).isascii() and not _has_long_string(node)

    def _lines(self, nodes: Sequence[ast.AST]) -> list[bytes]:
        """The lines from the first node to the last; what stands around them is blank, or left out."""
        first, last = nodes[0], nodes[-1]
        start_line, start = self._first_line(first), first.col_offset  # type: ignore[attr-defined]
        end_line, end = last.end_lineno, last.end_col_offset  # type: ignore[attr-defined]
        lines = [linecache.getline(self.file, n).encode() for n in range(start_line, end_line + 1)]
        lines[-1] = lines[-1][:end]
        lead = lines[0][:start]
        lines[0] = (lead if lead.isspace() else b" " * start) + lines[0][start:]
        return lines

    def group_span(self, nodes: Sequence[ast.AST]) -> Span:
        """The span of several nodes that follow each other."""
        return self.span(nodes[0]).merge(self.span(nodes[-1]))


def _replace(lines: list[bytes], name: ast.Name, first_line: int) -> None:
    """Put a name where it says it is; blanks keep what follows it on its last line in place."""
    start, end = name.lineno - first_line, (name.end_lineno or name.lineno) - first_line
    before, after = lines[start][: name.col_offset], lines[end][name.end_col_offset :]
    if start == end:
        lines[start] = before + name.id.encode().ljust((name.end_col_offset or 0) - name.col_offset) + after
        return
    lines[start] = before + name.id.encode() + b"\n"
    lines[start + 1 : end] = [b"\n"] * (end - start - 1)
    lines[end] = b" " * (name.end_col_offset or 0) + after


def _says(text: str, node: ast.AST) -> bool:
    """Whether a text is the source of a node."""
    try:
        parsed = ast.parse(f"(\n{text}\n)", mode="eval").body if isinstance(node, ast.expr) else ast.parse(text).body[0]
    except (SyntaxError, IndexError):
        return False
    return ast.dump(parsed) == ast.dump(node)


class NoSource(Exception):
    """A function cannot be compiled, since its own text is not to be had."""


def definition_span(function: FunctionType) -> Span:
    """The line that a function's definition begins with: its first decorator's, if it has one."""
    return _line_span(function, function.__code__.co_firstlineno)


def def_span(function: FunctionType) -> Span:
    """The line with a function's `def`, or where there is none, the first of its text."""
    file, first = function.__code__.co_filename, function.__code__.co_firstlineno
    last = max((line for _, _, line in function.__code__.co_lines() if line), default=first)
    texts = ((number, linecache.getline(file, number).lstrip()) for number in range(first, last + 1))
    return _line_span(function, next((n for n, text in texts if text.startswith(("def ", "async def "))), first))


def _line_span(function: FunctionType, number: int) -> Span:
    line = linecache.getline(function.__code__.co_filename, number).rstrip()
    return Span(function.__code__.co_filename, number, len(line) - len(line.lstrip()), number, len(line))


def function_source(function: FunctionType) -> Source:
    """Parse the source of a function. Raises NoSource, and CompileError for what cannot be a program at all."""
    code = function.__code__
    name = function.__qualname__
    try:
        file = inspect.getsourcefile(code) or code.co_filename
        lines, first = inspect.getsourcelines(code)
    except (OSError, TypeError):
        hint = "define it in a file, in `ramify repl` or in a notebook"
        raise NoSource(f"the source of {name} cannot be found; {hint}") from None
    indented = lines[0][:1].isspace()
    text = "if True:\n" + "".join(lines) if indented else "".join(lines)
    try:
        tree = ast.parse(text, filename=file)
    except SyntaxError:  # a lambda may begin in the middle of a statement
        raise NoSource(_not_a_def(name)) from None
    ast.increment_lineno(tree, first - (2 if indented else 1))
    for node in walk(tree):
        if isinstance(node, Definition) and node.name == code.co_name:
            return _plain(Source(file, _checked(node, function)))
    raise NoSource(_not_a_def(name))


def _not_a_def(name: str) -> str:
    return f"{name} is not written with `def`"


def _checked(node: Definition, function: FunctionType) -> Definition:
    """The node; raises NoSource if it is not that of the function any more."""
    code = function.__code__
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    prefix = private_prefix(function.__qualname__)
    names = tuple(mangled(argument.arg, prefix) for argument in named if argument is not None)
    if names != code.co_varnames[: len(names)]:
        raise NoSource(f"the source of {function.__qualname__} has changed since it was defined")
    return node


def _plain(source: Source) -> Source:
    """The source itself; raises CompileError for generators, which are no programs."""
    for node in own_nodes(source.tree):
        if isinstance(node, ast.Yield | ast.YieldFrom):
            raise CompileError(
                "`yield` cannot stand in a program",
                span=source.span(node),
                help="collect the values in a list and return it; stream with `options(stream=...)`",
            )
    return source


# Nodes that are not looked into: those that open a scope, and those that have nothing below them.
_CLOSED = {ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.Name, ast.Constant}


def own_nodes(root: ast.AST) -> list[ast.AST]:
    """The nodes below `root` that belong to its own scope: nested functions and classes are listed, not entered.

    Load, Store and Del marks are left out: whoever wants one has it in `ctx`.
    """
    found: list[ast.AST] = []
    pending = children(root)
    while pending:
        node = pending.pop()
        found.append(node)
        if type(node) not in _CLOSED:
            pending += children(node)
    return found


def displayed(node: ast.expr) -> Iterator[ast.expr]:
    """What a display of tuples and lists, or of targets, is made of; else the node itself."""
    if isinstance(node, ast.Tuple | ast.List):
        for item in node.elts:
            yield from displayed(item)
    else:
        yield node


def _has_long_string(root: ast.AST) -> bool:
    """Whether a string literal below `root` covers several lines (dedenting would change it)."""
    return any(isinstance(node, ast.JoinedStr | ast.Constant) and node.end_lineno != node.lineno for node in walk(root))
