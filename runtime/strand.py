"""One line of execution of a compiled run: what it has read so far, and who watches what it does.

A run has one. Each `async def` program that a coroutine of the run gives a state to is one more, since several of them
may go on at once (`asyncio.gather`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..ir.span import Span
from .host import Escaped
from .order import Order
from .pending import Pending, Settled
from .trail import mark, unmark

if TYPE_CHECKING:
    from .context import Context
    from .hosttask import HostTask


class Read(NamedTuple):
    """A value that a compiled program has read before it arrived, where, and what the strand's state held then."""

    pending: Pending[Any]
    span: Span | None
    program: str
    prompt: Any

    def failure(self) -> BaseException | None:
        """The error that it ended with, as raised where it was read."""
        try:
            self.pending.result()
        except Escaped as escaped:
            return escaped.error
        except Exception as error:
            if self.span is not None:
                unmark(error)  # what met it first may stand behind
                mark(error, self.span, self.program)
        return self.pending.error


class Strand:
    """A strand of the run `context`. state: the cell that it began with, if it has one.

    task: where the host code of an `async def` program runs. marked: the last error that was given its place in the
    program. caught: the last error that a try has met; raised anew, by another read of what failed, it gets one more.
    num_watching: how many tries would see an exception now; what is read then is waited for at once. order: what was
    put off. above: the strand that has put this one off. has_visitors: whether another program's compiled form has run
    in it: then what one program lets nobody see, states in objects, may be seen by the other.
    """

    __slots__ = (
        "_above",
        "_num_checked",
        "_reads",
        "caught",
        "context",
        "has_visitors",
        "marked",
        "num_watching",
        "order",
        "state",
        "task",
    )

    def __init__(
        self, context: Context, state: Any = None, task: HostTask | None = None, above: Strand | None = None
    ) -> None:
        self._above: list[tuple[Strand, int]] = [] if above is None else [*above._above, (above, above.num_reads)]
        self.has_visitors: bool = above is not None and above.has_visitors
        self.context = context
        self.state = state
        self.task = task
        self.marked: BaseException | None = None
        self.caught: BaseException | None = None
        self.num_watching = 0
        self.order = Order()
        self._reads: list[Read] = []
        self._num_checked = 0
        if above is not None:
            self.order.follow(above.order)

    def remember(self, pending: Pending[Any], span: Span | None, program: str) -> None:
        """The program has read a value that is still on its way, or has put something off."""
        held = None if self.state is None else self.state.prompt
        self._reads.append(Read(pending, span, program, held))

    @property
    def num_reads(self) -> int:
        """How many values were read so far before they arrived: a place in program order."""
        return len(self._reads)

    @property
    def depth(self) -> int:
        """In how many strands this one was put off."""
        return len(self._above)

    def is_earlier(self, error: BaseException) -> bool:
        """Whether an error that a try would see has its place elsewhere: in what was put off, or in a read of a strand
        above that came before this one.
        """
        return any(error is placed for placed in self.order.placed) or any(
            error is read.pending.error for strand, count in self._above for read in strand._reads[:count]
        )

    @property
    def is_idle(self) -> bool:
        """Whether nothing that was read or put off is on its way."""
        return all(read.pending.done and read.pending.error is None for read in self._reads)

    async def read_error(self) -> BaseException | None:
        """The error of the first value read so far that has failed, once those before it have arrived.

        An eager run would have ended there: states go back to what they were.
        """
        while self._num_checked < len(self._reads):
            read = self._reads[self._num_checked]
            await Settled(read.pending)
            if read.pending.error is not None:
                self.order.undo(self._num_checked)
                if read.prompt is not None:
                    self.state.prompt = read.prompt  # an eager run would have appended nothing since
                error = read.failure()
                if error is not None:
                    self.order.placed.append(error)
                return error
            self._num_checked += 1
        return None

    def check_reads(self) -> None:
        """Raise the error of an earlier read that is known to have failed: an eager program would not have come here.

        Called before host code with effects; reads that are still on their way are not waited for.
        """
        while self._num_checked < len(self._reads):
            read = self._reads[self._num_checked]
            if not read.pending.done:
                return
            if read.pending.error is not None:
                self.marked = read.failure()
                raise read.pending.error
            self._num_checked += 1
