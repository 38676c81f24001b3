"""The IR of a function as boxes: what the drawing of an explanation (lang/explain_graph.py) is made of.

Ops that build one prompt, one after the other, share a box with a row for each part; a generation, a choice, a score, a
piece of host code is a box of its own; an op with regions is a box around the boxes of these. Constants stand in the
rows that use them, and checks are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..ir.core import Function, Op, Region, Value
from ..ir.printer import Names, function_lines, print_op

_BUILDING = {"prompt.append", "prompt.role", "prompt.bind", "prompt.item", "prompt.image", "prompt.video", "cell.store"}
_CLOSING = {"prompt.role", "cell.store"}
_BEGINNING = {"cell.load", "prompt.branch", "prompt.empty"}
_KINDS = {
    "lm.gen": "gen", "lm.select": "select", "lm.score": "score", "py.expr": "host", "py.block": "host",
    "py.call": "host", "flow.invoke": "host", "flow.call": "call", "prompt.fork": "fork", "prompt.get": "read",
    "prompt.text": "read", "prompt.since": "read", "prompt.messages": "read",
}  # fmt: skip
_REGION_LABELS = {
    "flow.if": ("then", "else"), "flow.while": ("test", "do"), "flow.try": ("do", "except", "else", "finally"),
}  # fmt: skip
_UNNAMED = {"prompt": "prompt", "cell": "state"}
_PLACEHOLDER = re.compile(r"\b__\w+\b")
_MOST_LINES = 4
_MOST_CHARACTERS = 40


@dataclass(slots=True)
class Row:
    """A row of text in a box. uses: the values that go into it; is_dim: whether it says little."""

    text: str
    uses: list[Value] = field(default_factory=list)
    is_dim: bool = False


@dataclass(slots=True)
class Box:
    """Ops that are drawn as one. after: the boxes of the same region that come before, by their numbers.

    defines: the values that it gives; aliases: others that are the same. chain: the prompt that it goes on from. parts:
    the regions in it, with what they are called. title: the ops as printed. x, y, width, height: where it is drawn, in
    its region until all is placed.
    """

    kind: str
    rows: list[Row]
    ops: list[Op]
    after: set[int]
    title: list[str]
    defines: list[Value] = field(default_factory=list)
    chain: Value | None = None
    parts: list[Part] = field(default_factory=list)
    aliases: list[Value] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0

    @property
    def right(self) -> float:
        """The x of its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y of its lower edge."""
        return self.y + self.height

    def walk(self) -> Iterator[Box]:
        """This box and all in it."""
        yield self
        for part in self.parts:
            for box in part.boxes:
                yield from box.walk()


@dataclass(slots=True)
class Part:
    """A region in a box, drawn as a frame when it has a label."""

    label: str
    boxes: list[Box]
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0


def boxes_of(function: Function, told: Callable[[Op], str]) -> list[Box]:
    """The boxes of a function's body. told: what more is to be said of a generation, choice or score."""
    return _Boxes(function, told).of_region(function.body, "")


def is_place(value: Value) -> bool:
    """Whether the value stands for something that changes, so that its uses have an order."""
    return str(value.type) == "cell"


class _Boxes:
    """What is known of a whole function. uses: how often each value is used, stores not counted."""

    def __init__(self, function: Function, told: Callable[[Op], str]) -> None:
        self.told = told
        self.names = Names()
        function_lines(function, self.names)
        self.uses: Counter[Value] = Counter()
        self.constants: dict[Value, str] = {}
        self.code: dict[Value, str] = {}
        for op in function.body.walk():
            self.uses.update(op.operands if op.name != "cell.store" else op.operands[:1])
            if (text := _constant(op)) is not None:
                self.constants[op.result] = text
            elif op.name == "py.expr":
                self.code[op.result] = self.host_code(op)
            elif op.name in ("flow.call", "py.call"):
                self.code[op.result] = f"{op.attrs['callee']}(…)"

    def of_region(self, region: Region, around: str) -> list[Box]:
        """The boxes of a region. around: the op that it belongs to."""
        made = _RegionBoxes(self)
        for value in region.args:
            if self.uses[value] or str(value.type) == "prompt":
                made.add_argument(value)
        for op in region.ops:
            made.add(op, around)
        return _in_order(made.boxes)

    def label(self, value: Value) -> str:
        """What a value is called where it is used."""
        text = self.constants.get(value) or value.name or self.code.get(value)
        return text or _UNNAMED.get(str(value.type)) or self.names.of(value)

    def host_code(self, op: Op) -> str:
        """The op's code, with the names of values instead of made-up ones."""
        known = dict(zip(op.attrs.get("inputs") or (), op.operands, strict=False))
        return _PLACEHOLDER.sub(lambda found: self._plain(known, found[0]), op.attrs["code"])

    def _plain(self, known: dict[str, Value], name: str) -> str:
        return known[name].name or name if name in known else name

    def printed(self, op: Op) -> str:
        """The op's first line of IR."""
        return print_op(op, self.names).partition("\n")[0]


class _RegionBoxes:
    """The boxes of a region as they are made, op by op."""

    def __init__(self, function: _Boxes) -> None:
        self.boxes: list[Box] = []
        self._function = function
        self._owner: dict[Value, int] = {}
        self._last: dict[Value, int] = {}
        self._groups: dict[Value, Value] = {}  # the states that a group's join stores to

    def add_argument(self, value: Value) -> None:
        """A value that the region is given."""
        self._new(Box("argument", [Row(self._function.label(value))], [], set(), ["given to the region"], [value]))

    def add(self, op: Op, around: str) -> None:
        """The next op."""
        if op.name == "prompt.part" or (op.name == "flow.yield" and not op.operands) or _constant(op) is not None:
            return
        if op.name == "cell.of":  # a check: the value goes on under another name
            self._alias(op)
            return
        used = list(_used(op))
        joined = [self._groups[value] for value in used if value in self._groups and op.name.startswith("py.")]
        used += joined
        after = {self._owner[value] for value in used if value in self._owner}
        after |= {self._last[value] for value in used if value in self._last}
        if joined:
            after = set(range(len(self.boxes)))
        number = self._fold(op, after)
        if number is None:
            number = self._new(self._box(op, after, around))
        for value in op.results:
            self._owner[value] = number
        if op.name == "prompt.fork" and is_place(op.operands[0]):
            self._groups[op.result] = op.operands[0]
        self._last.update((value, number) for value in used if is_place(value))

    def _new(self, box: Box) -> int:
        number = len(self.boxes)
        self.boxes.append(box)
        self._owner.update((value, number) for value in box.defines)
        return number

    def _alias(self, op: Op) -> None:
        number = self._owner.get(op.operands[0])
        if number is not None:
            self._owner[op.result] = number
            self.boxes[number].aliases.append(op.result)

    def _fold(self, op: Op, after: set[int]) -> int | None:
        """Put the op into the box of the prompt that it goes on from, if it belongs there; gives the box's number."""
        if op.name not in _BUILDING:
            return None
        chain = op.operands[-1 if op.name == "cell.store" else 0]
        number = self._owner.get(chain)
        if number is None or self.boxes[number].defines[-1:] != [chain]:
            return None
        box, others = self.boxes[number], after - {number}
        is_closing = op.name == "cell.store" or op.attrs.get("mark") == "end"
        if box.kind != "prompt" and not (box.kind in ("gen", "select", "score") and is_closing):
            return None
        if op.name != "cell.store" and self._function.uses[chain] != 1:
            return None
        if self._are_after(others, number):
            return None
        box.after |= others
        box.ops.append(op)
        box.title.append(self._function.printed(op))
        self._add_row(box, op)
        box.defines += op.results
        return number

    def _are_after(self, some: set[int], number: int) -> bool:
        """Whether any of some boxes comes after another one."""
        todo, seen = list(some), set(some)
        while todo:
            each = todo.pop()
            if each == number:
                return True
            todo.extend(self.boxes[each].after - seen)
            seen |= self.boxes[each].after
        return False

    def _add_row(self, box: Box, op: Op) -> None:
        """A row for the op, or more text in the last one; what only says where the prompt is kept stays at the end."""
        dim = [row for row in box.rows if row.is_dim]
        box.rows = [row for row in box.rows if not row.is_dim]
        self._add_text(box, op)
        stored = [row.text for row in box.rows if row.is_dim]
        box.rows = [row for row in box.rows if not row.is_dim] + [row for row in dim if row.text not in stored]
        box.rows += [Row(text, is_dim=True) for text in stored]

    def _add_text(self, box: Box, op: Op) -> None:
        uses = [value for value in op.operands[1:] if value not in self._function.constants]
        last = box.rows[-1] if box.rows else None
        match op.name:
            case "cell.store":
                box.rows.append(Row(f"→ {op.operands[0].name}", is_dim=True))
            case "prompt.role" if op.attrs["mark"] == "end" and last is not None:
                last.text += " ◂"
            case "prompt.role":
                role = op.attrs.get("role") or "message"
                box.rows.append(Row(f"{role} ▸" if op.attrs["mark"] == "begin" else "◂", uses))
            case "prompt.append" if last is not None and last.text.endswith("▸"):
                last.text, last.uses = f"{last.text} {self._appended(op.operands[1])}", last.uses + uses
            case "prompt.append":
                box.rows.append(Row(self._appended(op.operands[1]), uses))
            case _:
                box.rows.append(Row(self._text(op), uses))

    def _appended(self, value: Value) -> str:
        label = cut(self._function.label(value), _MOST_CHARACTERS - 14)
        return label if value in self._function.constants else f"{{{label}}}"

    def _box(self, op: Op, after: set[int], around: str) -> Box:
        title = [self._function.printed(op)]
        if op.regions:
            parts = [
                Part(label, self._function.of_region(region, op.name))
                for label, region in zip(_labels(op), op.regions, strict=True)
            ]
            kept = [part for part in parts if part.boxes]
            return Box("flow", [Row(self._head(op), op.operands[:1])], [op], after, title, list(op.results), parts=kept)
        kind = "prompt" if op.name in _BUILDING | _BEGINNING else _KINDS.get(op.name, _other(op))
        chain = next((value for value in op.operands if str(value.type) == "prompt"), None)
        box = Box(kind, [], [op], after, title, list(op.results), chain)
        if op.name in _BUILDING:
            self._add_row(box, op)
        else:
            uses = [value for value in op.operands if value is not chain and value not in self._function.constants]
            box.rows = [Row(text) for text in self._texts(op, around)]
            box.rows[0].uses = uses
            if op.name.startswith("lm.") and (told := self._function.told(op)):
                box.rows.append(Row(told, is_dim=True))
        return box

    def _head(self, op: Op) -> str:
        name = op.name.removeprefix("flow.")
        if name == "for":
            item = op.regions[0].args[0]
            return f"for {item.name or 'item'} in {self._operand(op, 0)}"
        return f"{name} {self._operand(op, 0)}" if op.operands and name == "if" else name

    def _texts(self, op: Op, around: str) -> list[str]:
        if op.name == "py.block" or op.name == "py.expr":
            lines = self._function.host_code(op).splitlines()
            more = [f"… {len(lines) - _MOST_LINES + 1} more lines"] if len(lines) > _MOST_LINES else []
            return lines[: _MOST_LINES - 1] + more if more else lines or [""]
        if op.name == "flow.yield":
            names = ", ".join(self._function.label(value) for value in op.operands)
            return [f"{'next turn' if around in ('flow.for', 'flow.while') else 'gives'}: {names}"]
        return [self._text(op)]

    def _text(self, op: Op) -> str:
        attrs, operand = op.attrs, partial(self._operand, op)
        match op.name:
            case "lm.gen" | "lm.select" | "lm.score":
                return f"{op.name[3:]} {attrs.get('name') or ''}".rstrip()
            case "cell.load":
                return f"from {operand(0)}"
            case "prompt.branch":
                return "copy"
            case "prompt.empty":
                return "empty prompt"
            case "prompt.fork":
                return f"fork × {operand(1)}"
            case "prompt.get":
                return f"read {attrs['name']}"
            case "prompt.text" | "prompt.since" | "prompt.messages":
                return f"read the {op.name[7:] if op.name != 'prompt.since' else 'text since'}"
            case "prompt.bind":
                return f"{attrs.get('name') or operand(2)} = {operand(1)}"
            case "flow.call" | "py.call":
                return f"call {attrs['callee']}({', '.join(map(self._function.label, op.operands))})"
            case "cell.new":
                return "new state"
        operands = ", ".join(self._function.label(value) for value in op.operands)
        return f"{op.name.removeprefix('flow.')} {operands}".rstrip()

    def _operand(self, op: Op, number: int) -> str:
        return self._function.label(op.operands[number]) if number < len(op.operands) else "?"


def _in_order(boxes: list[Box]) -> list[Box]:
    """The boxes so that each stands after those that it comes after: folding may have given it some that are later."""
    numbers: dict[int, int] = {}
    while len(numbers) < len(boxes):
        number = next(n for n, box in enumerate(boxes) if n not in numbers and box.after <= numbers.keys())
        numbers[number] = len(numbers)
    for box in boxes:
        box.after = {numbers[each] for each in box.after}
    return [boxes[number] for number in numbers]


def _labels(op: Op) -> Sequence[str]:
    return _REGION_LABELS.get(op.name, ("",) * len(op.regions))


def _other(op: Op) -> str:
    return "cell" if op.name.startswith("cell.") else "end" if op.name.startswith("flow.") else "host"


def _constant(op: Op) -> str | None:
    """What an op gives in every run, as text; None if it takes something."""
    if op.name == "py.const":
        return repr(op.attrs["value"])
    if op.name == "py.unbound":
        return "(nothing yet)"
    return op.attrs["code"] if op.name == "py.expr" and not op.operands else None


def _used(op: Op) -> Iterator[Value]:
    """The values that an op uses, and those that are used in its regions."""
    yield from op.operands
    for region in op.regions:
        for inner in region.walk():
            yield from inner.operands


def cut(text: str, most: int = _MOST_CHARACTERS) -> str:
    """The text on one line, with an ellipsis where it is too long."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
