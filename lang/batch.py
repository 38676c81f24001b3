"""Runs a program over many rows: a bounded number at a time, in order of rows, none disturbed by another."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from ..ir.errors import Cancelled
from ..runtime.loop import loop, post
from ..runtime.pending import Pending
from .execution import Execution
from .mailbox import Mailbox
from .run import Run

OnError = Literal["keep", "raise"]
Progress = bool | Callable[[int, int], None]
# Starting a program takes a while; this many in a row, then the loop sees to what runs already.
_STARTS_PER_TURN = 32


class Batch:
    """The rows of a batch on the loop; `finished` is called with each row's number and run, as they end."""

    def __init__(
        self, executions: Sequence[Callable[[], Execution]], max_in_flight: int, finished: Callable[[int, Run], None]
    ) -> None:
        self.done: Pending[None] = Pending()
        self._waiting = deque(enumerate(executions))
        self._running: dict[int, Execution] = {}
        self._left = len(executions)
        self._max_in_flight = max_in_flight
        self._finished = finished
        self._filling = False
        self._error: BaseException | None = None

    def start(self) -> None:
        """Begin. On the loop thread."""
        if not self._left:
            self.done.set_result(None)
        self._fill()

    def cancel(self) -> None:
        """Cancel what runs, and start nothing more. Thread-safe."""
        post(self._cancel)

    def _cancel(self) -> None:
        self._left -= len(self._waiting)
        self._waiting.clear()
        for execution in list(self._running.values()):
            execution.context.cancel(Cancelled("the batch was cancelled"))
        if not self._left:
            self.done.set_result(None)

    def _fill(self) -> None:
        if self._filling:
            return
        self._filling = True
        try:
            for _ in range(_STARTS_PER_TURN):
                if not self._waiting or len(self._running) >= self._max_in_flight:
                    return
                self._start_next()
        finally:
            self._filling = False
        loop().soon(self._fill)

    def _start_next(self) -> None:
        number, make = self._waiting.popleft()
        execution = self._running[number] = make()
        execution.start().add_callback(lambda run: self._end(number, run.result()))

    def _end(self, number: int, run: Run) -> None:
        del self._running[number]
        self._left -= 1
        self._finished(number, run)
        if not self._left:
            self.done.set_result(None)
        else:
            self._fill()


def run_rows(
    executions: Sequence[Callable[[], Execution]],
    mailbox: Mailbox,
    *,
    max_in_flight: int,
    progress: Progress,
    on_result: Callable[[int, Run], None] | None,
    on_error: OnError,
) -> list[Run]:
    """Run all, and call back on this thread. Raises the first error met, if `on_error` says so, after cancelling."""
    runs: dict[int, Run] = {}
    with _shown(progress, len(executions)) as show:

        def receive(number: int, run: Run) -> None:
            if mailbox.is_closing and isinstance(run.error, Cancelled):
                return
            runs[number] = run
            show(len(runs), len(executions))
            if on_result is not None:
                on_result(number, run)
            if run.error is not None and on_error == "raise":
                run.error.add_note(f"in row {number} of the batch")
                raise run.error

        batch = Batch(executions, max_in_flight, lambda number, run: mailbox.post(receive, number, run))
        loop().soon(batch.start)
        mailbox.wait(batch.done, batch.cancel)
    return [runs[number] for number in range(len(executions))]


@contextmanager
def _shown(progress: Progress, total: int) -> Iterator[Callable[[int, int], Any]]:
    """A function that shows how many of the rows are done: the user's own, a bar on stderr, or nothing."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda done, total: None
    else:
        from rich.console import Console
        from rich.progress import Progress as Bar

        with Bar(console=Console(file=sys.stderr)) as bar:
            task = bar.add_task("rows", total=total)
            yield lambda done, total: bar.update(task, completed=done)
