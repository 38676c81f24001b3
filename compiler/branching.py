"""`flow.if`: two ways to go on, and the values that variables have where they meet again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir.core import Region, Value
from ..ir.types import OBJ
from .leaving import end_region, unreachable
from .lowering import Lowering


def choose(
    low: Lowering, condition: Value, yes: Callable[[], None], no: Callable[[], None], names: Sequence[str]
) -> None:
    """Lower a flow.if of what two functions lower; they assign the variables in `names`, and no others."""
    branches = [_Branch(low, yes), _Branch(low, no)]
    open_ends = [branch for branch in branches if not branch.terminated]
    for branch in open_ends:
        branch.close(names)
    results = [OBJ] * len(names) if open_ends else []
    hints = names if open_ends else []
    regions = [branch.region for branch in branches]
    made = low.builder.op("flow.if", [condition], results=results, hints=hints, regions=regions)
    low.env.update(zip(hints, made.results, strict=True))
    for index, value in enumerate(made.results):
        if any(branch.region.ops[-1].operands[index] in low.unsure for branch in open_ends):
            low.unsure.add(value)
    if not open_ends:
        unreachable(low)


class _Branch:
    """One side of an `if`, lowered into a region of its own."""

    def __init__(self, low: Lowering, lower: Callable[[], None]) -> None:
        self.low = low
        self.region = Region()
        with low.region(self.region):
            lower()
            self.env = low.env
            self.terminated = low.builder.terminated

    def close(self, names: Sequence[str]) -> None:
        """End the region by yielding the variables' values."""
        with self.low.region(self.region):
            self.low.env = self.env
            end_region(self.low, "flow.yield", names)
