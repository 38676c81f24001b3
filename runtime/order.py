"""Program order among ops that run later than they are reached: what the pass `parallelize` lets be put off.

An op that is put off waits in a task (a Routine) of its own, and its strand goes on. Effects still happen in program
order: each task that could notice another's waits for its turn, which comes when all that were put off before it have
ended. While some are outstanding, `held` are the mutable objects that they may reach; nothing else is changed by them.
After PopPy (arXiv 2605.18697); here objects are told apart when the program runs, not by annotations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Container, Sequence
from typing import Any

from .hostwork import Reached, reach
from .pending import Pending, PendingObject

MAX_OUTSTANDING = 1024
"""So many tasks of a strand may be on their way; behind them the program waits."""
MAX_LOOKED_AT = 10_000
"""So many values of containers are looked at before an op that reaches them is put off."""


class Late(PendingObject):
    """What an op that was put off will give: a value of builtin types without states, which others may change."""

    __slots__ = ()
    is_plain = True


class _Both:
    """The ids that are in either of two sets of them."""

    __slots__ = ("_one", "_other")

    def __init__(self, one: Container[int], other: Container[int]) -> None:
        self._one = one
        self._other = other

    def __contains__(self, key: object) -> bool:
        return key in self._one or key in self._other


class Order:
    """What a strand has put off and is still on its way, in program order. All of it happens on the loop thread."""

    __slots__ = ("_above", "_holds_unknown", "_outstanding", "_stores", "held", "placed", "with_states")

    def __init__(self) -> None:
        self._outstanding: deque[Pending[None]] = deque()
        self._above: Order | None = None
        self.held: dict[int, Any] = {}
        """The mutable objects that outstanding tasks may reach, by their ids."""
        self.with_states: set[int] = set()
        """Those of them that tasks may have put states into."""
        self._holds_unknown = False
        self._stores: list[tuple[int, Any, Any]] = []
        self.placed: list[BaseException] = []
        """Errors of tasks, which know their place in the program already."""

    def follow(self, above: Order) -> None:
        """Begin behind all that was put off in another order so far."""
        self.placed = above.placed
        if above.last is not None:
            self._outstanding.append(above.last)
            self._above = above

    @property
    def known(self) -> Container[int]:
        """What is held here or above: it was looked through when that began, and only tasks have changed it since."""
        return self.held if self._above is None else _Both(self.held, self._above.known)

    def is_clear(self) -> bool:
        """Whether all that was put off has ended well."""
        outstanding = self._outstanding
        if not outstanding:
            return True
        while outstanding and outstanding[0].done and outstanding[0].error is None:
            outstanding.popleft()
        if outstanding:
            return False
        self._above = None
        self.held.clear()
        self.with_states.clear()
        self._holds_unknown = False
        self._stores.clear()
        return True

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be put off for now."""
        return len(self._outstanding) >= MAX_OUTSTANDING

    @property
    def last(self) -> Pending[None] | None:
        """Done when everything that was put off so far has ended, with the first error in program order."""
        return self._outstanding[-1] if self._outstanding else None

    def check(self) -> None:
        """Raise the error of what was put off first, if it has failed: an eager program would not have come here."""
        if self._outstanding and self._outstanding[0].error is not None:
            self._outstanding[0].result()

    async def turn(self) -> None:
        """Wait until everything that was put off has ended. Raises the first error in program order."""
        while not self.is_clear():
            await self._outstanding[-1]

    def add(self, task: Pending[Any], held: Reached | None) -> None:
        """A task that was put off now, and what it may reach: anything for None."""
        before, over = self.last, Pending[None]()
        self._hold(held)
        self._outstanding.append(over)

        def settle(error: BaseException | None) -> None:
            if error is None:
                over.set_result(None)
            else:
                over.set_error(error)

        def end(_: Pending[Any]) -> None:
            if before is None:
                settle(task.error)
            else:
                before.add_callback(lambda earlier: settle(earlier.error or task.error))

        task.add_callback(end)

    def hold(self, value: Any) -> Any:
        """Tasks may have this value, which has arrived now, as an operand; gives it."""
        if self._outstanding:
            self._hold(reach([value]))
        return value

    def _hold(self, reached: Reached | None) -> None:
        if reached is None:
            self._holds_unknown = True
            return
        self.held.update(reached.mutable)
        if reached.has_states:
            self.with_states.update(reached.mutable)

    def holds(self, reached: Collection[int]) -> bool:
        """Whether a task may reach one of these objects, which are given by their ids."""
        if self._above is not None and self._above.holds(reached):
            return True
        return any(self._holds_unknown or key in self.held for key in reached)

    @property
    def holds_unknown(self) -> bool:
        """Whether a task may do what cannot be seen of it, such as to give a global name another value."""
        return self._holds_unknown or (self._above is not None and self._above.holds_unknown)

    def may_change(self, values: Sequence[Any]) -> bool:
        """Whether a task may change one of these values, or what can be reached from it."""
        reached = reach(values)
        return reached is None or reached.has_states or self.holds(reached.mutable)

    def stored(self, cell: Any, position: int) -> None:
        """The strand is about to store to a cell, after so many reads: should a task fail, that did not happen."""
        if self._outstanding:
            self._stores.append((position, cell, cell.prompt))

    def undo(self, position: int) -> None:
        """Take back what was stored to cells after the read of this number, which has failed."""
        while self._stores and self._stores[-1][0] > position:
            _, cell, prompt = self._stores.pop()
            cell.prompt = prompt
