"""Runs a program over many rows: a bounded number at a time, none disturbed by another, each told as it ends.

The rows run on the loop (`_Running`); the Batch reads rows, takes in what has ended and calls back on the thread that
iterates over it. The loop does not know the Batch, so one that is dropped is freed, and cancels what it has begun.
"""

from __future__ import annotations

import contextvars
import math
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal, TypedDict, TypeVar, get_args

from ..ir.errors import Cancelled, UsageError
from ..runtime.backend import Backend
from ..runtime.generation import StreamEvent
from ..runtime.hostpool import host_pool
from ..runtime.hosttask import PrivateLoop
from ..runtime.loop import Timer, loop
from .arguments import Arguments
from .execution import Execution
from .journal import Journal
from .mailbox import CANCEL_SECONDS, Mailbox
from .named_files import named_files
from .progress import Progress, Tally, shown
from .records import recorded_run, run_record
from .restored import restored, written_types
from .run import Run

T = TypeVar("T")
OnError = Literal["keep", "raise", "stop"]
_NO_ARGUMENTS = Arguments((), (), {}, ())
# How many rows run at a time unless a caller says otherwise.
MAX_IN_FLIGHT = 256
# Starting a program takes a while; this many in a row, then the loop sees to what runs already.
_STARTS_PER_TURN = 32
# Rows are read for so long before it is seen what has ended meanwhile.
_FEED_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class BoundRow:
    """A row's arguments, or what is wrong with them; `key` tells it from other rows in a journal."""

    arguments: Arguments | UsageError
    key: str = ""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How a batch is run; see Program.run_batch. keeps_all: whether the runs of all rows are wanted, also of those that
    an earlier batch has finished; returns: the type that the program is annotated to return, for these.
    """

    max_in_flight: int
    deadline: float | None
    on_error: OnError
    on_result: Callable[[int, Run], None] | None
    keeps_all: bool
    returns: Any = None

    def check(self) -> None:
        """Raises UsageError for an option that cannot be."""
        if self.max_in_flight < 1:
            raise UsageError(f"max_in_flight must be at least 1, got {self.max_in_flight}")
        if self.on_error not in get_args(OnError):
            raise UsageError(f'on_error is "keep", "raise" or "stop", not {self.on_error!r}')
        if self.deadline is not None and not (isinstance(self.deadline, int | float) and self.deadline > 0):
            raise UsageError(f"deadline is a number of seconds above 0, or None for no limit; got {self.deadline!r}")


class BatchKeywords(TypedDict, total=False):
    """The options of Program.run_batch."""

    backend: str | PathLike[str] | Backend | None
    eager: bool | None
    stream: Callable[[StreamEvent], None] | None
    timeout: float | None
    deadline: float | None
    progress: Progress
    on_result: Callable[[int, Run], None] | None
    max_in_flight: int
    on_error: OnError
    out: str | PathLike[str] | None
    resume: bool
    overwrite: bool
    record: str | PathLike[str] | bool | None
    replay: str | PathLike[str] | None
    partial: bool


class Batch:
    """The runs of a batch, as they end: iterate over it; `run.row` is the number of a run's row.

    Closing it (also as a context manager, or by dropping it) cancels what is left. tally: counts of the rows so far.
    journal: where they are written, if they are. order: the numbers of the rows in the order in which they begin; None
    as they come.
    """

    def __init__(
        self,
        rows: Iterable[BoundRow],
        total: int | None,
        order: Sequence[int] | None,
        begin: Callable[[Arguments], Execution],
        options: BatchOptions,
        mailbox: Mailbox,
        journal: Journal | None,
        progress: Progress,
        home: PrivateLoop | None,
    ) -> None:
        self.tally = Tally(total) if journal is None else Tally(total, journal.num_finished, journal.num_failed)
        self._rows = iter(_numbered(rows, order))
        self._options = options
        self._mailbox = mailbox
        self.journal = journal
        self._home = home
        self._running = _Running(begin, options.max_in_flight, mailbox, journal, home)
        # How many rows may have been read whose runs were not given yet.
        self._most_ahead = math.inf if options.keeps_all and isinstance(rows, list) else 2 * options.max_in_flight
        self._num_read = 0
        self._num_left = 0  # of those, how many have not come back from the loop
        self._reads_on = True
        self._has_read_all = False
        self._is_over = False
        self._ready: deque[Run] = deque()
        self._errors: list[BaseException] = []
        self._open = ExitStack()
        if journal is not None:
            self._open.callback(journal.close)
        self._show = self._open.enter_context(shown(progress, self.tally))
        if options.deadline is not None:
            self._open.callback(self._running.set_deadline(options.deadline).cancel)
        self._guarded(self._feed)

    def __iter__(self) -> Iterator[Run]:
        return self

    def __next__(self) -> Run:
        if self._is_over:
            raise StopIteration
        run = self._guarded(self._next)
        if run is None:
            self._guarded(self._end)
            raise StopIteration
        return run

    def when_closed(self, callback: Callable[[], object]) -> None:
        """Call back once it is over and has let go of everything."""
        self._open.callback(callback)

    def all(self) -> list[Run]:
        """All runs that are still to come, in the rows' order."""
        with self:
            runs = {run.row: run for run in self}
        return [runs[row] for row in sorted(runs)]  # type: ignore[type-var]

    def cancel(self, row: int | None = None) -> None:
        """Cancel a row, or all that were read, and read no more. They end with Cancelled. Thread-safe."""
        if row is None:
            self._reads_on = False
            loop().soon(self._running.cancel, Cancelled("the batch was cancelled"))
        else:
            loop().soon(self._running.cancel_row, row, Cancelled(f"row {row} was cancelled"))

    def close(self) -> None:
        """Cancel what is left, and wait until it has let go; rows that were finished by then are still written."""
        self._shut(None)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._shut(error)

    def __del__(self) -> None:
        if not getattr(self, "_is_over", True):
            self._is_over = True  # whoever dropped it must not wait here
            loop().soon(self._running.release, Cancelled("the batch was abandoned"))
            self._open.close()

    def _guarded(self, step: Callable[[], T]) -> T:
        try:
            return step()
        except BaseException as error:
            self._shut(error)
            raise

    def _next(self) -> Run | None:
        """The next run; None when there will be none."""
        while True:
            self._receive()
            # Reading rows may take its time: what is ready does not wait for it, unless soon nothing would run.
            if not self._ready or self._num_left <= self._options.max_in_flight // 2:
                self._feed()
            if self._ready:
                return self._ready.popleft()
            if not self._may_read():
                if not self._num_left:
                    return None
                self._mailbox.take()

    def _may_read(self) -> bool:
        if self._running.reason is not None and self.tally.total is None:
            self._reads_on = False  # rows that nobody knows of need not be told of
        return self._reads_on and not self._has_read_all and self._num_left + len(self._ready) < self._most_ahead

    def _feed(self) -> None:
        """Read rows and give them to the loop, for some milliseconds."""
        rows: list[tuple[int, BoundRow]] = []
        end = time.perf_counter() + _FEED_SECONDS
        while self._may_read() and (time.perf_counter() < end or self._most_ahead == math.inf):
            drawn = next(self._rows, None)
            if drawn is None:
                self._has_read_all = True
                break
            self._num_read += 1
            if not self._was_finished_earlier(*drawn):
                self._num_left += 1
                rows.append(drawn)
        if rows:
            loop().soon(self._running.feed, rows)

    def _was_finished_earlier(self, row: int, bound: BoundRow) -> bool:
        journal = self.journal
        if journal is None or not journal.has(row, bound.key):
            return False
        if self._options.keeps_all:
            run = recorded_run(restored(journal.record(row), self._options.returns), row)
            self._ready.append(run)
            if run.error is not None and self._options.on_error == "raise":
                self._note_error(run)
        return True

    def _receive(self) -> None:
        """Take in what has ended by now. Raises what is to stop the batch."""
        self._mailbox.take_now()
        while self._running.ended:
            ended = self._running.ended.popleft()
            self._num_left -= 1
            if ended.write_error is not None:
                raise ended.write_error
            self._ready.append(ended.run)
            self._tell(ended.run)

    def _tell(self, run: Run) -> None:
        assert run.row is not None
        self.tally.add(run)
        self._show()
        if self._options.on_result is not None:
            self._options.on_result(run.row, run)
        if run.error is not None and self._options.on_error != "keep":
            self._note_error(run)
            if self._options.on_error == "stop":
                raise run.error

    def _note_error(self, run: Run) -> None:
        assert run.error is not None
        run.error.add_note(f"in row {run.row} of the batch")
        self._errors.append(run.error)

    def _end(self) -> None:
        """Nothing is left: complete the output, and raise the rows' errors if that was asked for."""
        self._is_over = True
        loop().soon(self._running.release, Cancelled("the batch is over"))
        try:
            if self.journal is not None and self._has_read_all:
                self.journal.complete(self._num_read)
        finally:
            self._close(waits=True)
        if self._errors:
            raise BaseExceptionGroup(f"{len(self._errors)} of {self._num_read} rows failed", self._errors)

    def _shut(self, error: BaseException | None) -> None:
        """Cancel what is left and wait until it has let go; after Ctrl-C still tell of what was finished by then."""
        if self._is_over:
            return
        self._is_over = self._mailbox.is_closing = True
        loop().soon(self._running.release, Cancelled("the batch was cancelled"))
        try:
            while not self._running.is_released:
                self._mailbox.take(CANCEL_SECONDS)
            while self._running.ended and isinstance(error, KeyboardInterrupt):
                ended = self._running.ended.popleft()
                if not ended.was_cancelled:
                    self._tell(ended.run)
        except queue.Empty:
            pass
        finally:
            self._close(waits=self._running.is_released)

    def _close(self, *, waits: bool) -> None:
        self._open.close()
        if self._home is not None and waits:
            self._home.ended.wait()


def _numbered(rows: Iterable[BoundRow], order: Sequence[int] | None) -> Iterable[tuple[int, BoundRow]]:
    if order is None:
        return enumerate(rows)
    assert isinstance(rows, list)
    return ((number, rows[number]) for number in order)


@dataclass(frozen=True, slots=True)
class _Ended:
    """A row that has ended. was_cancelled: by the batch, so that it counts as not run and is not written.

    write_error: why it could not be written.
    """

    run: Run
    was_cancelled: bool
    write_error: BaseException | None = None


class _Running:
    """The rows that run or wait to. Everything is called on the loop thread, but `set_deadline`.

    ended: what has ended and was not taken in; the batch's own thread takes it. reason: why no row may begin any more.
    is_released: whether all has ended, after `release`.
    """

    def __init__(
        self,
        begin: Callable[[Arguments], Execution],
        max_in_flight: int,
        mailbox: Mailbox,
        journal: Journal | None,
        home: PrivateLoop | None,
    ) -> None:
        self.ended: deque[_Ended] = deque()
        self.reason: Cancelled | None = None
        self.is_released = False
        self._num_left = 0
        self._is_closing = False
        self._begin = begin
        self._max_in_flight = max_in_flight
        self._mailbox = mailbox
        self._journal = journal
        self._home = home
        # The programs see the context variables of whoever made the batch.
        self._in_context = contextvars.copy_context().run
        self._waiting: deque[tuple[int, BoundRow]] = deque()
        self._executions: dict[int, Execution] = {}
        self._cancelled: dict[int, Cancelled] = {}
        self._is_filling = False

    def feed(self, rows: list[tuple[int, BoundRow]]) -> None:
        """Take rows, to run when there is room."""
        self._num_left += len(rows)
        self._waiting.extend(rows)
        self._fill()

    def cancel(self, reason: Cancelled) -> None:
        """Cancel all that runs or waits or will come."""
        self.reason = self.reason or reason
        for row in list(self._executions):
            self.cancel_row(row, self.reason)
        self._fill()

    def release(self, reason: Cancelled) -> None:
        """Cancel all, say when it has let go, and end the event loop of `async def` programs then."""
        self._is_closing = True
        self.cancel(reason)
        self._check_released()

    def _check_released(self) -> None:
        if self._is_closing and not self._num_left:
            self.is_released = True
            self._mailbox.post(_wake)
            if self._home is not None:
                self._home.end()

    def cancel_row(self, row: int, reason: Cancelled) -> None:
        """Cancel a row, which may not have come yet; nothing happens where it has ended."""
        execution = self._executions.get(row)
        if execution is None:
            self._cancelled[row] = reason
        elif execution.context.cancelled is None:
            self._cancelled[row] = reason
            execution.context.cancel(reason)

    def set_deadline(self, seconds: float) -> Timer:
        """Cancel all after so many seconds. Thread-safe."""
        return loop().later(seconds, self.cancel, Cancelled(f"the batch reached its deadline of {seconds:g} s"))

    def _fill(self) -> None:
        if self._is_filling:
            return
        self._is_filling = True
        try:
            for _ in range(_STARTS_PER_TURN):
                if not self._waiting or (len(self._executions) >= self._max_in_flight and self.reason is None):
                    return
                self._start(*self._waiting.popleft())
        finally:
            self._is_filling = False
        loop().soon(self._fill)

    def _start(self, row: int, bound: BoundRow) -> None:
        reason = self.reason or self._cancelled.pop(row, None)
        wrong = bound.arguments if isinstance(bound.arguments, UsageError) else None
        arguments = _NO_ARGUMENTS if isinstance(bound.arguments, UsageError) else bound.arguments
        execution = self._in_context(self._begin, arguments)
        if reason is not None or wrong is not None:
            self._end(row, bound, execution.unbegun(reason or wrong), reason is not None)
            return
        self._executions[row] = execution
        execution.start().add_callback(lambda run: self._ran(row, bound, run.result()))

    def _ran(self, row: int, bound: BoundRow, run: Run) -> None:
        del self._executions[row]
        was_cancelled = self._cancelled.pop(row, None) is not None and run.error is not None
        self._end(row, bound, run, was_cancelled)
        self._fill()

    def _end(self, row: int, bound: BoundRow, run: Run, was_cancelled: bool) -> None:
        run.row = row
        journal = self._journal
        if journal is None or was_cancelled:
            self._tell(_Ended(run, was_cancelled))
            return
        written = host_pool().submit(lambda: journal.add(row, bound.key, _written(bound, run)))
        written.add_callback(lambda written: self._tell(_Ended(run, False, written.error)))

    def _tell(self, ended: _Ended) -> None:
        self.ended.append(ended)
        self._mailbox.post(_wake)
        self._num_left -= 1
        self._check_released()


def _written(bound: BoundRow, run: Run) -> dict[str, Any]:
    """What is written of a row that has ended."""
    files = {} if isinstance(bound.arguments, UsageError) else named_files(bound.arguments.values)
    return run_record(run) | written_types(run) | ({"files": files} if files else {})


def _wake() -> None:
    """What a mailbox is sent when there is something to look at."""
