"""Pass `promote`: cells that do not escape become prompt values (mem2reg for states).

A cell escapes when anything but a load, a store, a fork that is never joined or a reading host op uses it. For each of
the others every load is replaced by the prompt that the cell holds there; ifs and loops that store to it carry the
prompt along. Cells made by `cell.new` become `prompt.branch`. The entry's parameter belongs to the run, which may look
at it at any time and after an error, so its stores stay where they are. Parameters of helpers stay cells: a caller may
hand over the same state twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.core import Function, Module, Op, Region, Value
from ..ir.types import CELL, PROMPT
from .rewrite import replace_uses, uses

_LOOPS = {"flow.for", "flow.while"}


def promote(module: Module) -> None:
    """Promote every cell of the module that does not escape, in place."""
    called = {op.attrs["callee"] for op in module.walk() if op.name == "flow.call"}
    for function in module.functions.values():
        if function.name == module.entry and function.name not in called:
            for argument in [arg for arg in function.body.args if arg.type == CELL]:
                if not _escapes(function.body, argument):
                    _promote_parameter(function, argument)
        _promote_new(function.body, function)


def _promote_parameter(function: Function, cell: Value) -> None:
    if any(op.name == "cell.load" and op.operands[0] is cell for op in function.body.walk()):
        first = Op("cell.load", [cell], [Value(PROMPT, cell.name)], span=function.span)
        work = _Promotion(function, cell, keep_stores=True)
        work.region(function.body, first.result)
        function.body.ops.insert(0, first)


def _promote_new(region: Region, function: Function) -> None:
    for op in list(region.ops):
        if op.name == "cell.new" and not _escapes(function.body, op.result):
            index = region.ops.index(op)
            rest = Region([], region.ops[index + 1 :])
            # The branch stays: its number is part of what a seeded run draws there.
            branch = Op("prompt.branch", [op.operands[0]], [Value(PROMPT, op.result.name)], span=op.span)
            _Promotion(function, op.result, keep_stores=False).region(rest, branch.result)
            region.ops[index:] = [branch, *rest.ops]
    for op in region.ops:
        for inner in op.regions:
            _promote_new(inner, function)


def _escapes(region: Region, cell: Value) -> bool:
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
            if op.regions:
                current = self._nested(op, current, carried)
            elif self.cell in op.operands:
                current, keep = self._access(op, current)
                if not keep:
                    continue
            kept.append(op)
        region.ops = kept
        return current

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
        if not self._stored_in(op):
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

    def _stored_in(self, op: Op) -> bool:
        return any(
            inner.name == "cell.store" and inner.operands[0] is self.cell
            for region in op.regions
            for inner in region.walk()
        )
