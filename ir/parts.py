"""Which ops may run beside those that stand behind them: what is put off by the pass `parallelize`, besides host code.

A part is a row of ops in a region: an op with regions, or a call, that may have to wait, or one that uses what another
part has not given yet; and those right behind it that go on from it. It may run in a strand of its own, since nobody
outside of it could tell but by host code, which keeps its order in any case (runtime/order.py): it leaves nothing,
shares no variable, stores to cells of its own region only, and branches prompts that nobody else branches (branch
numbers decide what a seeded run draws). Later passes may change a region, so it is looked at anew when it is linked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from typing import NamedTuple

from .core import Function, Op, Region, Value
from .turns import inside, is_state, made_by, own_ends
from .types import CELL

WAITING = ("flow.if", "flow.for", "flow.while", "flow.try", "flow.call")
"""Ops that may have to wait before what stands behind them can be reached."""
HOST_CODE = ("py.expr", "py.block")
_NEVER = {
    "cell.of", "prompt.fork", "py.box", "py.unbox", "py.call", "flow.invoke", "flow.return", "flow.break", "flow.leave",
}  # fmt: skip
_ON_CELLS = ("cell.load", "cell.store", "flow.call")
_OWN_VARIABLES = ("py.push", "py.collect", "var.set", "var.get", "py.dict")
_CONSTANTS = ("py.const", "py.default", "py.unbound")


class Part(NamedTuple):
    """The ops of a region from one to before another. given: what they make and others use; cells: those of others that
    they may store to.
    """

    start: int
    end: int
    given: list[Value]
    cells: list[Value]


class Parts:
    """The parts of a function, found region by region, in the order of the program.

    late: the values that may not have arrived when they are used, as far as it has been looked through.
    """

    def __init__(self, function: Function, is_opaque: Callable[[Op], bool]) -> None:
        """is_opaque: whether host code does more than can be seen of it."""
        self.late: set[Value] = set()
        self._is_opaque = is_opaque
        self._lines = _Lines(function)
        self._unsure = _unsure(function)
        self._uses: dict[Value, list[Op]] = {}
        for op in function.body.walk():
            for operand in op.operands:
                self._uses.setdefault(operand, []).append(op)
        self._own_cells = {
            value
            for value, used in self._uses.items()
            if value.type == CELL and self._lines.is_made_here(value) and all(_keeps(op, value) for op in used)
        }

    def find(self, ops: Sequence[Op]) -> list[Part]:
        """The parts of a row of ops, which ends with its region or before other ops of it."""
        around = {id(inner) for op in ops for inner in op.walk()}
        found, number = [], 0
        while number < len(ops):
            end = self._end(ops, number, around) if self._begins(ops[number]) else number
            if end > number:
                found.append(self._part(ops, number, end))
            elif ops[number].name in HOST_CODE and ops[number].attrs.get("ahead"):
                self.late.update(ops[number].results)
            elif ops[number].name == "prompt.get":
                self.late.add(ops[number].result)
            number = max(end, number + 1)
        return found

    def may_begin(self, op: Op, around: Region) -> bool:
        """Whether a part of a region could begin with an op that has regions, or calls."""
        ids = {id(inner) for each in around.ops for inner in each.walk()}
        return self._may_stand_in(op, {id(inner) for inner in op.walk()}, made_by([op]), ids) and self._is_sure([op])

    def _begins(self, op: Op) -> bool:
        if op.name in WAITING:
            return bool(op.attrs.get("ahead"))
        if op.name in HOST_CODE:
            return bool(op.attrs.get("ahead")) and self._is_opaque(op)
        return _is_plain(op) and not self.late.isdisjoint(op.operands)

    def _end(self, ops: Sequence[Op], start: int, around: Set[int]) -> int:
        """Where a part ends that begins with an op; where it begins if it cannot."""
        end, made, ids = start, set[Value](), set[int]()
        for number in range(start, len(ops)):
            op = ops[number]
            if op.name in _CONSTANTS:
                continue
            goes_on = op.name not in HOST_CODE and op.name != "hint.warm" and not made.isdisjoint(_used(op))
            wider, more = made | made_by([op]), ids | {id(inner) for inner in op.walk()}
            if not (end == start or goes_on) or not self._may_stand_in(op, more, wider, around):
                break
            end, made, ids = number + 1, wider, more
        return end if self._is_sure(ops[start:end]) else start

    def _part(self, ops: Sequence[Op], start: int, end: int) -> Part:
        taken = ops[start:end]
        ids = {id(inner) for op in taken for inner in op.walk()}
        made = [value for op in taken for value in op.results]
        given = [value for value in made if any(id(user) not in ids for user in self._uses.get(value, ()))]
        stored = {value for op in taken for value in _used(op) if value.type == CELL}
        cells = [value for value in stored if value not in made]
        self.late.update(given, cells)
        return Part(start, end, given, cells)

    def _is_sure(self, ops: Sequence[Op]) -> bool:
        """Whether all that ops give is assigned."""
        return all(value not in self._unsure for op in ops for value in op.results)

    def _may_stand_in(self, op: Op, ids: Set[int], made: Set[Value], around: Set[int]) -> bool:
        """Whether an op may be the next of a part. ids: the ops of the part with it; made: what they make; around:
        the ops of its region.
        """
        if op.name in ("flow.yield", "flow.continue", "flow.condition") or any(True for _ in own_ends([op])):
            return False
        return all(self._is_its_own(each, ids, made, around) for each in inside(op))

    def _is_its_own(self, op: Op, ids: Set[int], made: Set[Value], around: Set[int]) -> bool:
        if op.name in _NEVER or (op.name == "flow.call" and op.attrs.get("method")):
            return False
        if op.name in _OWN_VARIABLES:
            return all(operand in made for operand in (op.operands if op.name == "py.dict" else op.operands[:1]))
        if op.name in _ON_CELLS and not all(self._is_own_cell(each, around) for each in _cells(op)):
            return False
        if any(op.attrs.get(name) for name in ("captures", "outer", "signals")):
            return False
        written = op.operands[len(op.operands) - len(op.attrs.get("writes", ())) :]
        return all(value in made for value in written) and self._lines.may_branch(op, ids, around)

    def _is_own_cell(self, cell: Value, around: Set[int]) -> bool:
        return cell in self._own_cells and self._lines.is_within(cell, around)


def _is_plain(op: Op) -> bool:
    """Whether an op is of the language, and may have to wait for what it uses."""
    never = ("prompt.fork", "prompt.part", "cell.of", "lm.call")
    return op.name.startswith(("prompt.", "lm.", "cell.")) and op.name not in never


def _cells(op: Op) -> list[Value]:
    return [value for value in op.operands if value.type == CELL]


def _keeps(op: Op, cell: Value) -> bool:
    """Whether a use of a cell passes it on to nobody."""
    return op.name in ("cell.load", "cell.store") or (op.name == "flow.call" and op.operands.count(cell) == 1)


def _used(op: Op) -> list[Value]:
    return [value for each in op.walk() for value in each.operands]


def _unsure(function: Function) -> set[Value]:
    """The values that may stand for a variable that is not assigned."""
    unsure: set[Value] = set()
    columns: list[tuple[Iterable[Value], Iterable[Value]]] = []
    for op in function.body.walk():
        if op.name in ("py.unbound", "var.get") or (op.name == "py.block" and not _assigns_all(op)):
            unsure.update(op.results)
        columns.extend(_passed(op))
    num_unsure = -1
    while num_unsure != len(unsure):
        num_unsure = len(unsure)
        for sources, targets in columns:
            if not unsure.isdisjoint(sources):
                unsure.update(targets)
    return unsure


def _assigns_all(op: Op) -> bool:
    """Whether a block's code, if it ends, has assigned all its outputs: it has no statements in statements."""
    return not any(line[:1].isspace() for line in str(op.attrs["code"]).splitlines())


def _passed(op: Op) -> list[tuple[Sequence[Value], Sequence[Value]]]:
    """What an op with regions passes on: for each place the values that come there, and those that stand for them."""
    if op.name == "flow.if":
        ends = [region.ops[-1].operands for region in op.regions if region.ops[-1].name == "flow.yield"]
        return list(zip(zip(*ends, strict=True), ([result] for result in op.results), strict=False)) if ends else []
    if op.name not in ("flow.for", "flow.while"):
        return []
    starts = op.operands[1:] if op.name == "flow.for" else op.operands
    args = [region.args[1:] if op.name == "flow.for" else region.args for region in op.regions]
    *tests, body = op.regions
    ends = [end.operands for end in (body.ops[-1], *own_ends(body.ops[:-1])) if _passes_on(end)]
    ends += [test.ops[-1].operands[1:] for test in tests]
    return [
        (sources, targets)
        for sources, targets in zip(zip(starts, *ends, strict=True), zip(*args, op.results, strict=True), strict=True)
    ]


def _passes_on(end: Op) -> bool:
    return end.name in ("flow.yield", "flow.continue", "flow.break")


class _Lines:
    """Which prompts and cells of a function stand on one branch of the run, and who branches it.

    What grows from a prompt without a branch is on its line; so is a cell that holds one.
    """

    def __init__(self, function: Function) -> None:
        self._above: dict[Value, Value] = {}
        makers: list[tuple[Value, int]] = []
        branchers: list[tuple[Value, int]] = []
        for op in function.body.walk():
            for sources, targets in _passed(op):
                self._join([*sources, *targets])
            if op.name in ("prompt.branch", "cell.new", "prompt.empty"):
                makers.append((op.result, id(op)))
            else:
                self._join([*op.operands, *op.results])
            branchers += [(value, id(op)) for value in _branched(op)]
        self._makers = self._by_line(makers)
        self._branchers = self._by_line(branchers)
        strangers = [
            *function.body.args,
            *(v for op in function.body.walk() if op.name == "cell.of" for v in op.results),
        ]
        self._strange = {self._line(value) for value in strangers if is_state(value)}

    def is_made_here(self, value: Value) -> bool:
        """Whether a value's line begins in the function."""
        return self._line(value) not in self._strange

    def is_within(self, value: Value, ids: Set[int]) -> bool:
        """Whether a value's line begins in these ops."""
        line = self._line(value)
        return line not in self._strange and self._makers.get(line, {0}) <= ids

    def may_branch(self, op: Op, ids: Set[int], around: Set[int]) -> bool:
        """Whether what an op branches, if anything, is branched by these ops alone. around: the ops of the region."""
        return all(
            self.is_within(value, ids) or (self.is_within(value, around) and self._branchers[self._line(value)] <= ids)
            for value in _branched(op)
        )

    def _line(self, value: Value) -> Value:
        while (above := self._above.get(value, value)) is not value:
            value = above
        return value

    def _join(self, values: Iterable[Value]) -> None:
        states = [self._line(value) for value in values if is_state(value)]
        for value in states[1:]:
            self._above[self._line(value)] = self._line(states[0])

    def _by_line(self, found: Iterable[tuple[Value, int]]) -> dict[Value, set[int]]:
        lines: dict[Value, set[int]] = {}
        for value, number in found:
            lines.setdefault(self._line(value), set()).add(number)
        return lines


def _branched(op: Op) -> list[Value]:
    """The prompts or cells of which an op may make branches."""
    if op.name in ("prompt.branch", "cell.new", "prompt.fork"):
        return [op.operands[0]]
    return _cells(op) if op.name == "flow.call" else []
