"""Pass `promote`: cells that do not escape become prompt values (mem2reg for states).

A cell escapes when anything but a load, a store, a fork that is never joined or a reading host op uses it. For each of
the others every load is replaced by the prompt that the cell holds there; ifs and loops that store to it carry the
prompt along. Cells made by `cell.new` become `prompt.branch`, unless a try behind stores to them. The entry's parameter
belongs to the run, which may look at it at any time and after an error. So its stores stay, as do those to cells that a
try stores to; behind a try the cell is loaded anew. Parameters of helpers stay cells: a caller may hand over the same
state twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.core import Function, Inlined, Module, Op, Region, Value
from ..ir.span import Span
from ..ir.types import CELL, PROMPT
from .dce import drop_carried
from .rewrite import replace_uses, uses

_LOOPS = {"flow.for", "flow.while"}


def promote(module: Module) -> None:
    """Promote every cell of the module that does not escape, in place."""
    called = {op.attrs["callee"] for op in module.walk() if op.name == "flow.call"}
    for function in module.functions.values():
        while drop_carried(function.body):
            pass  # a variable of a loop's body that nobody reads behind the loop lets no cell escape
        if function.name == module.entry and function.name not in called:
            for argument in [arg for arg in function.body.args if arg.type == CELL]:
                if not escapes(function.body, argument):
                    _promote_parameter(function, argument)
        _promote_new(function.body, function)


def _promote_parameter(function: Function, cell: Value) -> None:
    if any(op.name == "cell.load" and op.operands[0] is cell for op in function.body.walk()):
        _promote_kept(function, function.body, _load(cell, function.span))


def _promote_kept(function: Function, region: Region, first: Op) -> None:
    """Promote a cell in a region, from the load on that its beginning gets, but leave its stores where they are."""
    (cell,) = first.operands
    _Promotion(function, cell, keep_stores=True).region(region, first.result)
    region.ops.insert(0, first)


def _load(cell: Value, span: Span | None, inlined: tuple[Inlined, ...] = ()) -> Op:
    return Op("cell.load", [cell], [Value(PROMPT, cell.name)], span=span, inlined=inlined)


def _is_stored_in_try(region: Region, cell: Value) -> bool:
    tries = (op for op in region.walk() if op.name == "flow.try")
    return any(_is_stored_in(op, cell) for op in tries)


def _is_stored_in(op: Op, cell: Value) -> bool:
    inside = (inner for region in op.regions for inner in region.walk())
    return any(inner.name == "cell.store" and inner.operands[0] is cell for inner in inside)


def _promote_new(region: Region, function: Function) -> None:
    for op in list(region.ops):
        if op.name == "cell.new" and not escapes(function.body, op.result):
            index = region.ops.index(op)
            rest = Region([], region.ops[index + 1 :])
            if _is_stored_in_try(rest, op.result):
                _promote_kept(function, rest, _load(op.result, op.span, op.inlined))
                region.ops[index + 1 :] = rest.ops
                continue
            # The branch stays: its number is part of what a seeded run draws there.
            branch = Op("prompt.branch", [op.operands[0]], [Value(PROMPT, op.result.name)])
            branch.span, branch.inlined = op.span, op.inlined
            _Promotion(function, op.result, keep_stores=False).region(rest, branch.result)
            region.ops[index:] = [branch, *rest.ops]
    for op in region.ops:
        for inner in op.regions:
            _promote_new(inner, function)


def escapes(region: Region, cell: Value) -> bool:
    """Whether anything but the uses named above happens to a cell."""
    return any(not _is_access(op, index) for op, index in uses(region, cell))


def _is_access(op: Op, index: int) -> bool:
    """Whether operand `index` of the op, a cell, is only loaded, stored to or read at once."""
    if op.name in ("py.expr", "py.block"):
        inputs = op.attrs["inputs"]
        return index < len(inputs) and inputs[index] in op.attrs.get("reads", ())
    if op.name == "prompt.fork":
        return index == 0 and not op.attrs.get("joins")
    return op.name == "cell.load" or (op.name == "cell.store" and index == 0)


@dataclass(slots=True)
class _Promotion:
    """Replaces one cell by prompt values, region by region."""

    function: Function
    cell: Value
    keep_stores: bool

    def region(self, region: Region, current: Value, *, carried: bool = False) -> Value:
        """Rewrite a region in which the cell first holds `current`; returns what it holds at the end.

        carried: whether the innermost loop around carries the prompt, so that its terminators must pass it on.
        """
        kept: list[Op] = []
        for op in region.ops:
            if op.name in ("flow.break", "flow.continue") and carried:
                op.operands.append(current)
            if op.name == "flow.try" and _is_stored_in(op, self.cell):
                kept += [op, load := self._try(op, current)]
                current = load.result
                continue
            if op.regions:
                current = self._nested(op, current, carried)
            elif self.cell in op.operands:
                current, keep = self._access(op, current)
                if not keep:
                    continue
            kept.append(op)
        region.ops = kept
        return current

    def _try(self, op: Op, current: Value) -> Op:
        """Rewrite a try that stores to the cell; returns a load of what it holds afterwards.

        An exception may come between any two of its stores, so every region but the first loads what it holds by then.
        """
        self.region(op.regions[0], current)
        for region in op.regions[1:]:
            if any(self.cell in inner.operands for inner in region.walk()):
                load = self._load(region.ops[0])
                self.region(region, load.result)
                region.ops.insert(0, load)
        return self._load(op)

    def _load(self, at: Op) -> Op:
        return _load(self.cell, at.span, at.inlined)

    def _access(self, op: Op, current: Value) -> tuple[Value, bool]:
        """Rewrite a use of the cell; returns what the cell holds afterwards, and whether the op stays."""
        if op.name == "cell.load":
            replace_uses(self.function.body, op.result, current)
            return current, False
        if op.name == "cell.store":
            return op.operands[1], self.keep_stores
        if op.name == "prompt.fork":
            op.operands[0] = current
            return current, True
        read = {op.attrs["inputs"][i] for i, value in enumerate(op.operands) if value is self.cell}
        op.operands = [current if value is self.cell else value for value in op.operands]
        left = [name for name in op.attrs["reads"] if name not in read]
        op.attrs = {key: value for key, value in op.attrs.items() if key != "reads"} | ({"reads": left} if left else {})
        return current, True

    def _nested(self, op: Op, current: Value, carried: bool) -> Value:
        if not _is_stored_in(op, self.cell):
            for region in op.regions:
                self.region(region, current, carried=carried and op.name not in _LOOPS)
            return current
        result = Value(PROMPT, self.cell.name)
        if op.name in _LOOPS:
            self._loop(op, current)
        else:
            for region in op.regions:
                self._close(region, self.region(region, current, carried=carried), "flow.yield")
        op.results.append(result)
        return result

    def _loop(self, op: Op, current: Value) -> None:
        op.operands.append(current)
        for region in op.regions:
            argument = Value(PROMPT, self.cell.name)
            region.args.append(argument)
            last = self.region(region, argument, carried=True)
            self._close(region, last, "flow.condition" if region.ops[-1].name == "flow.condition" else "flow.yield")

    def _close(self, region: Region, last: Value, terminator: str) -> None:
        if region.ops[-1].name == terminator:
            region.ops[-1].operands.append(last)
