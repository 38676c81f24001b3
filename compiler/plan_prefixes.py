"""Pass `plan_prefixes`: requests are planned with those that come at the same time, as one prefix tree.

What comes at the same time is known when the program runs, so the pass marks the ops and runtime/scheduler.py plans:
what is shared is computed once, depth first, and no more runs begin than memory can hold. Of a batch that is larger
than what runs at once, the pass tells in which order its rows share: `plan` names the parameters that the prompts are
made of, in the order in which they take them up.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..ir.core import Function, Module, Op, Value
from ..ir.types import PROMPT
from .asking import asking

_LOOPS = ("flow.for", "flow.while")


def plan_prefixes(module: Module) -> None:
    """Mark all ops that may ask the model, in place; those of the entry with the parameters that come before them."""
    entry = module.functions[module.entry]
    parts = _Parts(entry)
    before: dict[str, None] = {}
    names: dict[Op, list[str]] = {}
    for op in entry.body.walk():
        parts.follow(op)
        if op.operands and op.operands[0].type == PROMPT and any(result.type == PROMPT for result in op.results):
            before |= dict.fromkeys(parts.of(op.operands[1:]))
        names[op] = list(before)
    for op in asking(module):
        op.attrs = op.attrs | {"plan": names.get(op, [])}


class _Parts:
    """Which parameters each value of a function is made of, in order."""

    def __init__(self, function: Function) -> None:
        self._parts: dict[Value, tuple[str, ...]] = {
            value: (name,) for value, name in zip(function.body.args, function.param_names, strict=True)
        }

    def of(self, values: Iterable[Value]) -> tuple[str, ...]:
        """The parameters of several values."""
        return tuple(dict.fromkeys(name for value in values for name in self._parts.get(value, ())))

    def follow(self, op: Op) -> None:
        """Note what an op gives, and what its regions are given."""
        together = self.of(operand for operand in op.operands if operand.type != PROMPT)
        for result in op.results:
            if result.type != PROMPT:
                self._parts[result] = together
        if op.name in _LOOPS:
            for region in op.regions:
                for given, argument in zip(op.operands, region.args, strict=False):
                    self._parts[argument] = self.of([given])
