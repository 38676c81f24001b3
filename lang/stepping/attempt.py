"""One execution of a program that is stepped, seen from the thread that steps it."""

from __future__ import annotations

import contextlib
from collections import deque

from ...ir.errors import Cancelled
from ...runtime.generation import Generation
from ...runtime.loop import loop
from ...runtime.stepping import Visit
from ...runtime.toolcall import ToolCall
from ..arguments import Arguments
from ..execution import Execution
from ..mailbox import CANCEL_SECONDS, Mailbox
from ..options import Options
from ..program import Program
from ..run import Run


class Attempt:
    """A run that waits before each of its steps until it is told to go on."""

    def __init__(self, program: Program, arguments: Arguments, options: Options) -> None:
        """Begin. Raises what compiling the program and opening its backend raise."""
        self._mailbox = Mailbox()
        self._visits: deque[Visit] = deque()
        options = options.updated({"stream": None, "timeout": None})  # it would run out while somebody thinks
        self._execution = Execution(program.fn, program.stepped(), arguments, options)
        self._execution.context.stepper = self
        self._execution.ended.add_callback(lambda _: self._mailbox.post(lambda: None))
        loop().soon(self._execution.start)

    def arrive(self, visit: Visit) -> None:
        """See Stepper."""
        self._mailbox.post(self._visits.append, visit)

    def next(self) -> Visit | None:
        """Wait for the next step that the run comes to; None once it has ended."""
        while not self._visits:
            if self._execution.ended.done:
                return None
            self._mailbox.take()
        return self._visits.popleft()

    def leave(self, visit: Visit) -> None:
        """Let the run go on from a step."""
        loop().soon(visit.gate.set_result, None)

    @property
    def run(self) -> Run:
        """The run, which has ended."""
        return self._execution.ended.result()

    @property
    def asked(self) -> list[Generation | ToolCall]:
        """All that the run has asked for so far, in program order."""
        return list(self._execution.context.leaves())

    def cancel(self) -> None:
        """End the run, and wait until it has let go of everything."""
        if not self._execution.ended.done:
            self._execution.cancel(Cancelled("it was stepped, and left"))
            with contextlib.suppress(Exception):  # nobody asks what it ended with
                self._execution.ended.wait(CANCEL_SECONDS)
