"""The textual form of the IR: `print_module` writes what `parser.parse` reads back (see docs/ir.md for the grammar).

Values print as `%name`, unique within their function: the value's own hint, else a number. Strings of several lines
print as a block of `| line` lines, everything else on one line. Modules that `verify` refuses print too, so that
its errors can show them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .core import Attr, Function, Module, Op, Region, Value
from .ops import OPS
from .span import Span

# The word before each region of an op; parser and people need no more than the brace, so "" is fine for a first one.
_REGION_WORDS = {
    "flow.if": ("", "else"),
    "flow.for": ("do",),
    "flow.while": ("test", "do"),
    "flow.try": ("do", "except", "else", "finally"),
}
_STEP = "  "
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LONGEST_DECIMAL_BITS = 1024  # beyond this ints print as hex: CPython refuses very long decimal ints


def print_module(module: Module, *, spans: bool = False, names: defaultdict[str, Names] | None = None) -> str:
    """The module as text; with `spans`, each op and function ends in its `loc(...)`.

    names: by function, the names of values, which are shared between calls.
    """
    names = defaultdict(Names) if names is None else names
    parts = [f"module {_symbol(module.entry)}\n", *_tables(module)]
    parts += [print_function(each, spans=spans, names=names[each.name]) for each in module.functions.values()]
    return "\n".join(parts)


def print_function(function: Function, *, spans: bool = False, names: Names | None = None) -> str:
    """One function as text, ending in a newline."""
    return "".join(f"{line.text}\n" for line in function_lines(function, names, spans=spans))


def print_op(op: Op, names: Names | None = None, *, spans: bool = False) -> str:
    """One op as text, with its regions; `names` shares value names between calls."""
    printer = _Printer(names or Names(), spans)
    printer.op(op, "")
    return "\n".join(line.text for line in printer.lines)


@dataclass(slots=True)
class Line:
    """One printed line and the op that it starts or continues (None: a function's head or end)."""

    text: str
    op: Op | None


def function_lines(function: Function, names: Names | None = None, *, spans: bool = False) -> list[Line]:
    """The lines of a function, each with the op it belongs to: what error excerpts are cut from."""
    printer = _Printer(names or Names(), spans)
    printer.function(function)
    return printer.lines


@dataclass(slots=True)
class Names:
    """Gives each value of one function its unique printed name, in the order of asking."""

    known: dict[Value, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    next_number: int = 0
    suffixes: dict[str, int] = field(default_factory=dict)

    def of(self, value: Value) -> str:
        """The value's name with its `%`."""
        if value not in self.known:
            self.known[value] = self._new(re.sub(r"\W", "_", value.name))
            self.taken.add(self.known[value])
        return "%" + self.known[value]

    def _new(self, hint: str) -> str:
        # Names of digits only are kept for values without a hint, so that they are numbered anew on each printing.
        if re.fullmatch(r"\d*", hint):
            self.next_number += 1
            return str(self.next_number - 1)
        name = hint
        while name in self.taken:
            self.suffixes[hint] = self.suffixes.get(hint, 0) + 1
            name = f"{hint}{self.suffixes[hint]}"
        return name


class _Printer:
    """Writes ops and functions into `lines`, left to right."""

    def __init__(self, names: Names, spans: bool) -> None:
        self.names = names
        self.spans = spans
        self.lines: list[Line] = []

    def function(self, function: Function) -> None:
        self._start("", None)
        self._write(f"func {_symbol(function.name)}({self._parameters(function)}){self._location(function.span)} {{")
        self._ops(function.body, "")
        self._start("", None)
        self._write("}")

    def op(self, op: Op, indent: str) -> None:
        self._start(indent, op)
        if op.results:
            self._write(f"{self._values(op.results)} = ")
        self._write(op.name)
        if op.operands:
            self._write(f" {self._values(op.operands)}")
        self._attributes(op, indent)
        if op.results:
            self._write(f" : {', '.join(str(result.type) for result in op.results)}")
        for index, region in enumerate(op.regions):
            self._region(op, index, region, indent)
        self._write(self._location(op.span))
        for call in op.inlined:
            self._write(f" in {_symbol(call.callee)}{self._location(call.span)}")

    def _start(self, indent: str, op: Op | None) -> None:
        self.lines.append(Line(indent, op))

    def _write(self, text: str) -> None:
        self.lines[-1].text += text

    def _values(self, values: Iterable[Value]) -> str:
        return ", ".join(self.names.of(value) for value in values)

    def _typed(self, values: Iterable[Value]) -> str:
        return ", ".join(f"{self.names.of(value)}: {value.type}" for value in values)

    def _parameters(self, function: Function) -> str:
        parts = []
        for index, value in enumerate(function.body.args):
            shown = self.names.of(value)
            name = function.param_names[index] if index < len(function.param_names) else shown[1:]
            parts.append(f"{shown}{'' if shown == '%' + name else f' as {_key(name)}'}: {value.type}")
        return ", ".join(parts)

    def _attributes(self, op: Op, indent: str) -> None:
        """The attributes in the order of their declaration, those that print as blocks last."""
        if not op.attrs:
            return
        declared = list(OPS[op.name].attrs) if op.name in OPS else []
        keys = sorted(op.attrs, key=lambda key: declared.index(key) if key in declared else len(declared))
        blocks = [key for key in keys if is_block(op.attrs[key])]
        inline = [f"{_key(key)} = {print_attr(op.attrs[key])}" for key in keys if key not in blocks]
        self._write(" {" + ", ".join(inline))
        for index, key in enumerate(blocks):
            self._write(f"{', ' if inline or index else ''}{_key(key)} =")
            for line in op.attrs[key].split("\n"):
                self._start(indent + 2 * _STEP, op)
                self._write(_block_line(line))
            self._start(indent + _STEP, op)
        self._write("}")

    def _region(self, op: Op, index: int, region: Region, indent: str) -> None:
        words = _REGION_WORDS.get(op.name, ())
        word = words[index] if index < len(words) else "else" if index else ""
        head = [word] if word else []
        if region.args:
            head.append(f"({self._typed(region.args)})")
        self._write(f" {' '.join([*head, '{'])}")
        self._ops(region, indent)
        self._start(indent, op)
        self._write("}")

    def _ops(self, region: Region, indent: str) -> None:
        for op in region.ops:
            self.op(op, indent + _STEP)

    def _location(self, span: Span | None) -> str:
        if not self.spans or span is None:
            return ""
        return f" loc({quote(span.file)}:{span.line}:{span.column}-{span.end_line}:{span.end_column})"


def print_attr(value: Attr) -> str:
    """An attribute's value on one line; what is no attribute value prints as `<...>`, which does not parse."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, list):
        return f"[{', '.join(print_attr(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {print_attr(item)}" for key, item in value.items()) + "}"
    if isinstance(value, int) and value.bit_length() > _LONGEST_DECIMAL_BITS:
        return hex(value)
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    return f"<{value!r}>"


def quote(text: str) -> str:
    """The text in double quotes; whatever is not printable is escaped, so the result stays on one line."""
    return '"' + "".join(_escape(character) for character in text) + '"'


def _escape(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def is_block(value: Attr) -> bool:
    """Whether the value prints as a block: a string with two or more lines of text that need no escapes."""
    if not isinstance(value, str) or sum(bool(line.strip()) for line in value.split("\n")) < 2:
        return False
    return all(character.isprintable() or character in "\n\t" for character in value)


def _block_line(line: str) -> str:
    return f"| {line}" if line else "|"


def _tables(module: Module) -> list[str]:
    """The module's sources, imports and constants, one part each where there are any."""
    sources = [f"source {_key(name)} ={_source(text)}\n" for name, text in module.sources.items()]
    imports = [f"import {_key(name)} = {quote(target)}\n" for name, target in module.imports.items()]
    constants = [f"constant {_key(name)} = {print_attr(value)}\n" for name, value in module.constants.items()]
    return ["".join(part) for part in (sources, imports, constants) if part]


def _source(text: str) -> str:
    if not is_block(text):
        return f" {quote(text)}"
    return "".join(f"\n{_STEP}{_block_line(line)}" for line in text.split("\n"))


def _symbol(name: str) -> str:
    return f"@{name}" if re.fullmatch(r"[\w.]+", name) else f"@{quote(name)}"


def _key(name: object) -> str:
    if not isinstance(name, str):
        return f"<{name!r}>"
    return name if re.fullmatch(r"[^\W\d]\w*", name) else quote(name)


def excerpt(lines: Sequence[Line], op: Op | None, context: int = 3) -> list[str]:
    """The lines around `op` (around the first line without one), each marked `>` where it starts or else indented."""
    at = next((index for index, line in enumerate(lines) if line.op is op), 0)
    shown = range(max(0, at - context), min(len(lines), at + context + 1))
    return [f"{'>' if index == at else ' '} {lines[index].text}" for index in shown]
