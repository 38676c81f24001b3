"""Pass `dce`: drops ops whose results nobody uses and whose absence nobody can notice, and loop variables likewise.

Only ops declared `silent` are dropped, which can neither fail nor be seen: a host expression may raise, a read may
name a variable that does not exist, and dropping a gen would change the run's usage, so those stay.
"""

from __future__ import annotations

from ..ir.core import Module, Op, Region, Value
from ..ir.ops import OPS
from .rewrite import remove_ops, use_counts


def dce(module: Module) -> None:
    """Drop dead ops and dead carried values, in place, until there are none."""
    for function in module.functions.values():
        while drop_carried(function.body) or _drop_ops(function.body):
            pass


def _drop_ops(body: Region) -> bool:
    counts = use_counts(body)
    dead = [op for op in body.walk() if OPS[op.name].silent and not any(counts[value] for value in op.results)]
    remove_ops(body, dead)
    return bool(dead)


def drop_carried(body: Region) -> bool:
    """Drop values that loops carry, and results of ifs, that nobody reads; whether there were any."""
    changed = False
    counts = use_counts(body)
    for op in body.walk():
        if op.name in ("flow.for", "flow.while", "flow.if"):
            for index in reversed(range(len(op.results))):
                changed |= _drop_one(op, index, counts)
    return changed


def _drop_one(op: Op, index: int, counts: dict[Value, int]) -> bool:
    """Drop the index-th carried value of a loop, or result of an if, when nobody reads it."""
    if counts[op.results[index]]:
        return False
    ends = terminators(op)
    slots = [(end, index + fixed(end)) for end in ends]
    arguments = [] if op.name == "flow.if" else [region.args[index - len(op.results)] for region in op.regions]
    for argument in arguments:
        passed = sum(end.operands[slot] is argument for end, slot in slots)
        if counts[argument] > passed:
            return False
    for end, slot in slots:
        counts[end.operands[slot]] -= 1
        del end.operands[slot]
    for region, argument in zip(op.regions, arguments, strict=False):
        region.args.remove(argument)
    if arguments:
        start = len(op.operands) - len(op.results) + index
        counts[op.operands[start]] -= 1
        del op.operands[start]
    del op.results[index]
    return True


def fixed(end: Op) -> int:
    """How many operands a terminator has before the values that it passes on."""
    return 1 if end.name == "flow.condition" else 0


def terminators(op: Op) -> list[Op]:
    """The terminators that pass on an op's values: its regions' ends, and for loops every break and continue."""
    found = [region.ops[-1] for region in op.regions if region.ops[-1].name in ("flow.yield", "flow.condition")]
    if op.name != "flow.if":
        found += [end for region in op.regions for end in _loop_ends(region)]
    return found


def _loop_ends(region: Region) -> list[Op]:
    """The break and continue ops of a loop body that belong to this loop."""
    found = []
    for op in region.ops:
        if op.name in ("flow.break", "flow.continue"):
            found.append(op)
        elif op.name == "flow.if":
            found += [end for inner in op.regions for end in _loop_ends(inner)]
    return found
