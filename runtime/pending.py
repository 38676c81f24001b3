"""A value that may still be on its way: one-shot, with callbacks, readable from any thread.

Results are set on the loop thread (runtime/loop.py). Coroutines await a Pending, host threads `wait()` for it. It costs
four slots until somebody waits; callbacks run on a trampoline, so that a chain of ten thousand values that resolve one
another needs no deep stack.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

_log = logging.getLogger(__name__)
T = TypeVar("T")
U = TypeVar("U")

# Guards the hand-over between "still pending" and "done"; held for a few instructions only.
_lock = threading.Lock()


# A signal that comes just before the main thread starts to wait does not end the wait: it looks again so often.
_SIGNAL_SECONDS = 0.2


class WouldBlock(RuntimeError):
    """A value that has not arrived was read on the loop thread, which must never wait."""


class Gate(Protocol):
    """What wants to know that one of its threads stands still (the host pool, to let another thread work)."""

    def block(self) -> None: ...
    def unblock(self) -> None: ...


class _Thread(threading.local):
    """What this thread is: the loop's own, one of a host pool, or neither; and its trampoline."""

    def __init__(self) -> None:
        self.is_loop = False
        self.gate: Gate | None = None
        self.ready: deque[tuple[Callable[[Any], object], Any]] = deque()
        self.running = False


this_thread = _Thread()


class blocking:
    """Tells the host pool that this thread waits for something else and needs no share of the processor.

    It counts as working again from the moment at which somebody calls `wake`, or when it goes on by itself.
    """

    __slots__ = ("_gate",)

    def __enter__(self) -> blocking:
        self._gate = this_thread.gate
        if self._gate is not None:
            self._gate.block()
        return self

    def __exit__(self, *_: object) -> None:
        self.wake()

    def wake(self) -> None:
        """Count it as working again. Thread-safe, repeatable."""
        with _lock:
            gate, self._gate = self._gate, None
        if gate is not None:
            gate.unblock()


def turns(timeout: float | None) -> Iterator[float | None]:
    """The timeouts of the waits that together last `timeout` seconds, so that Ctrl-C is seen in between."""
    if threading.current_thread() is not threading.main_thread():
        yield timeout
        return
    end = None if timeout is None else time.monotonic() + timeout
    while end is None or end - time.monotonic() > _SIGNAL_SECONDS:
        yield _SIGNAL_SECONDS
    yield max(0.0, end - time.monotonic())


class Pending(Generic[T]):
    """A one-shot result. `set_result` and `set_error` belong to whoever made it; the first of them counts."""

    __slots__ = ("_callbacks", "_error", "_traceback", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._callbacks: list[Callable[[Any], object]] | None = None

    @property
    def error(self) -> BaseException | None:
        """The error it ended with; None while it is pending or when it succeeded."""
        return self._error

    def result(self) -> T:
        """The value. Raises the error it ended with, or WouldBlock when it has not arrived."""
        if not self.done:
            raise WouldBlock("this value has not arrived yet, and the loop thread cannot wait for it")
        if self._error is not None:
            # The traceback is put back, or it would grow with each of many readers.
            raise self._error.with_traceback(self._traceback)
        return self._value  # type: ignore[return-value]

    def set_result(self, value: T) -> None:
        """Arrive with a value; does nothing when it is done already."""
        self._finish(value, None)

    def set_error(self, error: BaseException) -> None:
        """Arrive with an error; does nothing when it is done already."""
        self._finish(None, error)

    def _finish(self, value: T | None, error: BaseException | None) -> None:
        with _lock:
            if self.done:
                return
            self._value = value
            if error is not None:
                self._error = error
                self._traceback = error.__traceback__
            callbacks, self._callbacks = self._callbacks, None
            self.done = True
        if callbacks:
            _run(callbacks, self)

    def add_callback(self, callback: Callable[[Any], object]) -> None:
        """Call `callback(self)` once it is done: at once if it is, else where it is set. Thread-safe."""
        with _lock:
            if not self.done:
                if self._callbacks is None:
                    self._callbacks = [callback]
                else:
                    self._callbacks.append(callback)
                return
        callback(self)

    def wait(self, timeout: float | None = None) -> T:
        """Block this host thread until it arrives; `timeout` in seconds. Raises WouldBlock, TimeoutError."""
        if not self.done:
            if this_thread.is_loop:
                return self.result()
            arrived = threading.Event()
            with blocking() as standing:

                def arrive(_: Pending[T]) -> None:
                    standing.wake()  # here, so that there is no moment at which nobody seems to work
                    arrived.set()

                self.add_callback(arrive)
                if not any(arrived.wait(turn) for turn in turns(timeout)):
                    raise TimeoutError(f"nothing arrived within {timeout} s")
        return self.result()

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done:
            yield self
        return self.result()

    def then(self, function: Callable[[T], U], into: Pending[U] | None = None) -> Pending[U]:
        """A Pending of `function(value)`, computed on arrival; errors pass through, and it may raise too."""
        target: Pending[U] = Pending() if into is None else into

        def arrive(source: Pending[T]) -> None:
            if source.error is not None:
                target.set_error(source.error)
                return
            try:
                target.set_result(function(source.result()))
            except Exception as error:
                target.set_error(error)

        self.add_callback(arrive)
        return target


class Settled:
    """Awaited in a coroutine: goes on when the Pending is done, and raises nothing."""

    __slots__ = ("_pending",)

    def __init__(self, pending: Pending[Any]) -> None:
        self._pending = pending

    def __await__(self) -> Generator[Any, None, None]:
        if not self._pending.done:
            yield self._pending


class PendingText(Pending[str]):
    """A Pending that is known to be a str when it arrives, so that it can be appended before it does."""

    __slots__ = ()


class AnnouncedText(Pending[Any]):
    """A Pending that is said to be a str when it arrives, but may be anything."""

    __slots__ = ()


class PendingObject(Pending[Any]):
    """A Pending of an object that host code may change: who looks at it has to do so in the program's order.

    is_plain: whether there are no states in it.
    """

    __slots__ = ()
    is_plain = False


class _Gather(Pending[list[Any]]):
    __slots__ = ("_items", "_missing")

    def __init__(self, items: Sequence[Any]) -> None:
        super().__init__()
        self._items = items
        waiting = [item for item in items if isinstance(item, Pending) and not item.done]
        self._missing = len(waiting)
        for item in waiting:
            item.add_callback(self._arrive)
        if not waiting:
            self._complete()

    def _arrive(self, _: Pending[Any]) -> None:
        with _lock:
            self._missing -= 1
            last = self._missing == 0
        if last:
            self._complete()

    def _complete(self) -> None:
        values = []
        items, self._items = self._items, ()  # a long chain of these would keep all of them
        for item in items:
            if isinstance(item, Pending):
                if item.error is not None:
                    self.set_error(item.error)
                    return
                item = item.result()
            values.append(item)
        self.set_result(values)


def gather(items: Sequence[Any]) -> Pending[list[Any]]:
    """A Pending of all items, each awaited if it is a Pending; fails with the first error in their order."""
    return _Gather(items)


def _run(callbacks: list[Callable[[Any], object]], pending: Pending[Any]) -> None:
    thread = this_thread
    thread.ready.extend((callback, pending) for callback in callbacks)
    if thread.running:
        return
    thread.running = True
    try:
        while thread.ready:
            callback, argument = thread.ready.popleft()
            try:
                callback(argument)
            except Exception:
                _log.exception("a callback of ramify's failed")  # the others must still be called
    finally:
        thread.running = False
