"""One execution of a program that is stepped, seen from the thread that steps it."""

from __future__ import annotations

import contextlib
import queue
from collections import deque
from dataclasses import dataclass

from ...backends.replay.cassette import Cassette
from ...ir.core import Op
from ...ir.errors import Cancelled
from ...runtime.generation import Generation
from ...runtime.linker import Frame
from ...runtime.loop import loop
from ...runtime.stepping import Visit
from ...runtime.strand import Strand
from ...runtime.toolcall import ToolCall
from ..arguments import Arguments
from ..execution import Execution
from ..mailbox import CANCEL_SECONDS, Mailbox
from ..options import Options
from ..program import Program
from ..run import Run
from ..transcript import Branch

Heard = list[Generation | ToolCall]
Place = tuple[Op, Branch]
_PATIENCE_SECONDS = 2.0


def place_of(visit: Visit) -> Place:
    """What tells a step of a run from others: its op, and the branch that this is about."""
    return visit.step.op, visit.prompt.branch


@dataclass(frozen=True, slots=True)
class Moment:
    """A run before a step. number: of the step, from 1. heard: what was asked for since the step before, and answered.

    enters: whether it is the first step of a function that was called. depth: how deep it is: the number of its strand,
    in the order in which they came, and how many calls are around it there.
    """

    visit: Visit
    number: int
    heard: Heard
    enters: bool
    depth: tuple[int, int]


class Attempt:
    """A run that waits before each of its steps until it is told to go on."""

    def __init__(self, program: Program, arguments: Arguments, options: Options, cassette: Cassette) -> None:
        """Begin. cassette: what records it, and plays it as far as it is known.

        Raises what compiling the program and opening its backend raise.
        """
        self._mailbox = Mailbox()
        self._visits: deque[Visit] = deque()
        self._number = 0
        self._told: set[Generation | ToolCall] = set()
        self._strands: list[Strand] = []
        self._last: Frame | None = None
        options = options.updated({"stream": None, "timeout": None})  # it would run out while somebody thinks
        self._execution = Execution(program.fn, program.stepped(), arguments, options, cassette=cassette)
        self._execution.context.stepper = self
        self._execution.ended.add_callback(lambda _: self._mailbox.post(lambda: None))
        loop().soon(self._execution.start)

    def arrive(self, visit: Visit) -> None:
        """See Stepper."""
        self._mailbox.post(self._visits.append, visit)

    def next(self, wanted: Place | None = None) -> Moment | None:
        """Wait for the next step that the run comes to; None once it has ended.

        wanted: where that was before. What an `async def` program does at once comes in any order, so that step is
        waited for then, as long as there is something that may come to it.
        """
        visit = self._next_visit(wanted)
        if visit is None:
            return None
        self._number += 1
        enters, self._last = self._enters(visit.frame), visit.frame
        return Moment(visit, self._number, self.heard(), enters, (self._strand(visit.frame), visit.frame.depth))

    def _next_visit(self, wanted: Place | None) -> Visit | None:
        is_patient = wanted is not None and self._execution.is_async
        while True:
            found = next((each for each in self._visits if not is_patient or place_of(each) == wanted), None)
            if found is not None:
                self._visits.remove(found)
                return found
            if self._execution.ended.done and not self._visits:
                return None
            try:
                self._mailbox.take(_PATIENCE_SECONDS if self._visits else None)
            except queue.Empty:
                is_patient = False

    def leave(self, moment: Moment) -> None:
        """Let the run go on from a step."""
        loop().soon(moment.visit.gate.set_result, None)

    def heard(self) -> Heard:
        """What has been asked for since this was called before, in program order."""
        asked = [each for each in self._execution.context.leaves() if each not in self._told]
        self._told.update(asked)
        return asked

    @property
    def run(self) -> Run:
        """The run, which has ended."""
        return self._execution.ended.result()

    def cancel(self) -> None:
        """End the run, and wait until it has let go of everything."""
        if not self._execution.ended.done:
            self._execution.cancel(Cancelled("it was stepped, and left"))
            with contextlib.suppress(Exception):  # nobody asks what it ended with
                self._execution.ended.wait(CANCEL_SECONDS)

    def _enters(self, frame: Frame) -> bool:
        last = self._last
        return frame is not last and (last is None or frame.depth > last.depth or frame.strand is not last.strand)

    def _strand(self, frame: Frame) -> int:
        known = next((number for number, each in enumerate(self._strands) if each is frame.strand), None)
        if known is None:
            self._strands.append(frame.strand)
            return len(self._strands) - 1
        return known
