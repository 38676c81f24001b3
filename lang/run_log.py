"""The runs of a session: numbered from 1, the last of them kept, and what all of them used together."""

from __future__ import annotations

from collections import OrderedDict

from ..ir.errors import UsageError
from ..runtime.context import Usage
from .run import Run

_MOST_KEPT = 200


class RunLog:
    """Numbers runs. kept: by number, the program's name and the run.

    usage: the sums over all of them, without times, which of a batch's rows are those of the batch.
    """

    def __init__(self) -> None:
        self.num_runs = 0
        self.num_failed = 0
        self.usage = Usage()
        self.kept: OrderedDict[int, tuple[str, Run]] = OrderedDict()

    def add(self, program: str, run: Run) -> None:
        """Number a run of a program that has ended."""
        self.num_runs += 1
        self.num_failed += not run.ok
        self.kept[self.num_runs] = program, run
        if len(self.kept) > _MOST_KEPT:
            self.kept.popitem(last=False)
        self.usage.add(run.usage)

    def number_of(self, run: Run) -> int | None:
        """The number of a run; None for one that is not kept."""
        return next((number for number, (_, each) in self.kept.items() if each is run), None)

    def run(self, number: int) -> Run:
        """The run of that number. Raises UsageError if there is none, or it is not kept."""
        if number in self.kept:
            return self.kept[number][1]
        if 1 <= number <= self.num_runs:
            raise UsageError(f"run {number} is no longer kept; the last {_MOST_KEPT} runs are")
        known = f"the runs are 1 to {self.num_runs}" if self.num_runs else "nothing was run yet"
        raise UsageError(f"there is no run {number}", help=known)
