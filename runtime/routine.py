"""Drives a coroutine that awaits Pendings: what asyncio.Task is for futures, without a turn of the loop per step.

A routine keeps a stack of coroutines of its own (`await Call(coroutine)`), so that programs may call one another
thousands of levels deep and a resume touches the innermost only. All of it happens on the loop thread.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

from .loop import loop, post
from .pending import Pending

T = TypeVar("T")


class Call(Generic[T]):
    """Awaited inside a routine: runs a coroutine on top of the routine's stack and gives its result."""

    __slots__ = ("coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.coroutine = coroutine

    def __await__(self) -> Generator[Any, T, T]:
        result = yield self
        return result


class Breath:
    """Awaited inside a routine: lets everything else that is ready run first."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield None


breath = Breath()


class Routine(Pending[T]):
    """A running coroutine, and the Pending of its result."""

    __slots__ = ("_stack", "_waiting")

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        super().__init__()
        self._stack: list[Coroutine[Any, Any, Any]] = [coroutine]
        self._waiting: Any = None

    def start(self) -> None:
        """Run until the coroutine waits for the first time. On the loop thread."""
        self._advance(None, None)

    def cancel(self, error: BaseException) -> None:
        """Raise `error` inside the coroutine where it waits now. On the loop thread."""
        if not self.done and self._waiting is not None:
            self._waiting = None
            self._advance(None, error)

    def _resume(self, awaited: Any) -> None:
        if awaited is self._waiting:  # else it was cancelled meanwhile
            self._waiting = None
            self._advance(None, None)

    def _advance(self, value: Any, error: BaseException | None) -> None:
        stack = self._stack
        while stack:
            try:
                wanted = stack[-1].send(value) if error is None else stack[-1].throw(error)
            except StopIteration as stop:
                del stack[-1]
                value, error = stop.value, None
                continue
            except BaseException as raised:
                del stack[-1]
                value, error = None, raised
                continue
            value, error = None, None
            if type(wanted) is Call:
                stack.append(wanted.coroutine)
            elif not (isinstance(wanted, Pending) and wanted.done):
                self._wait_for(wanted)
                return
        if error is None:
            self.set_result(value)
        else:
            self.set_error(error)

    def _wait_for(self, wanted: Pending[Any] | None) -> None:
        if wanted is None:
            self._waiting = breath
            loop().soon(self._resume, breath)
        else:
            self._waiting = wanted
            wanted.add_callback(self._resume)

    @property
    def depth(self) -> int:
        """How many coroutines are on the stack."""
        return len(self._stack)


def spawn(coroutine: Coroutine[Any, Any, T]) -> Routine[T]:
    """Start a coroutine on the loop. Thread-safe."""
    routine = Routine(coroutine)
    post(routine.start)
    return routine
