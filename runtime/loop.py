"""The event loop that every run shares: one daemon thread per process, started at the first use.

Programs therefore run from plain scripts, from threads, and from notebooks whose own loop is running. It is a queue of
calls and a heap of timers; `post` is the way into it from any thread. What needs asyncio (network clients, the user's
own coroutines) runs on `Loop.asyncio`, on a thread of its own, and posts its results here.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from queue import Empty, SimpleQueue
from typing import Any

from .pending import this_thread

_log = logging.getLogger(__name__)
_Call = tuple[Callable[..., object], tuple[Any, ...]]
# So many cancelled timers may lie in the heap before it is cleaned.
_MAX_CANCELLED = 256


class Timer:
    """A call that `Loop.later` has promised."""

    __slots__ = ("_loop", "call")

    def __init__(self, loop: Loop, call: _Call) -> None:
        self._loop = loop
        self.call: _Call | None = call

    def cancel(self) -> None:
        """Do not make the call. Thread-safe, and harmless when it was made."""
        if self.call is not None:
            self.call = None
            self._loop.soon(self._loop.timer_cancelled)


class Loop:
    """The loop thread, its queue of calls and its timers."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._timers: list[tuple[float, int, Timer]] = []
        self._when_idle: deque[Callable[[], object]] = deque()
        self._num_cancelled = 0
        self._order = itertools.count()
        self._asyncio: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()
        threading.Thread(target=self._serve, name="ramify-loop", daemon=True).start()

    def soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call `callback(*args)` on the loop thread, after what was asked for before. Thread-safe."""
        self._calls.put((callback, args))

    def later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` on the loop thread after a delay. Thread-safe."""
        timer = Timer(self, (callback, args))
        entry = (time.monotonic() + seconds, next(self._order), timer)
        if this_thread.is_loop:
            heappush(self._timers, entry)
        else:
            self.soon(heappush, self._timers, entry)
        return timer

    @property
    def is_idle(self) -> bool:
        """Whether no call waits to be made; timers do not count. On the loop thread."""
        return self._calls.empty()

    def when_idle(self, callback: Callable[[], object]) -> None:
        """Call back once the loop is idle. On the loop thread."""
        self._when_idle.append(callback)
        if len(self._when_idle) == 1:
            self._look_whether_idle()

    def _look_whether_idle(self) -> None:
        # One look for all that want to know: two would find each other waiting, for ever.
        if not self.is_idle:
            self.soon(self._look_whether_idle)
            return
        callback = self._when_idle.popleft()
        if self._when_idle:
            self.soon(self._look_whether_idle)
        callback()

    @property
    def asyncio(self) -> asyncio.AbstractEventLoop:
        """An asyncio loop on a thread of its own, started at the first use."""
        with self._starting:
            if self._asyncio is None:
                self._asyncio = asyncio.new_event_loop()
                threading.Thread(target=self._asyncio.run_forever, name="ramify-asyncio", daemon=True).start()
        return self._asyncio

    def _serve(self) -> None:
        this_thread.is_loop = True
        next_call = self._calls.get
        while True:
            try:
                call = next_call(timeout=self._run_timers()) if self._timers else next_call()
            except Empty:
                continue
            _make(call)
            del call  # while it waits for the next, the loop keeps nothing of a run that is over

    def _run_timers(self) -> float:
        """Make the calls that are due; gives the seconds until the next may be."""
        timers, now = self._timers, time.monotonic()
        while timers and timers[0][0] <= now:
            timer = heappop(timers)[2]
            call, timer.call = timer.call, None
            if call is not None:
                _make(call)
        return max(0.0, timers[0][0] - now) if timers else 0.0

    def timer_cancelled(self) -> None:
        """Count a cancelled timer, and forget them all once they are many. On the loop thread."""
        self._num_cancelled += 1
        if self._num_cancelled > max(_MAX_CANCELLED, len(self._timers) // 2):
            self._timers[:] = [entry for entry in self._timers if entry[2].call is not None]
            heapify(self._timers)
            self._num_cancelled = 0


def _make(call: _Call) -> None:
    callback, args = call
    try:
        callback(*args)
    except Exception:
        _log.exception("a callback failed on ramify's loop: %r", callback)


_current: Loop | None = None
_starting = threading.Lock()


def loop() -> Loop:
    """The process's loop, started if it is not running yet."""
    global _current
    if _current is None:
        with _starting:
            if _current is None:
                _current = Loop()
    return _current


def post(callback: Callable[..., object], *args: Any) -> None:
    """Call `callback(*args)` on the loop thread: at once when this is it, else soon. Thread-safe."""
    if this_thread.is_loop:
        callback(*args)
    else:
        loop().soon(callback, *args)


def _forget() -> None:
    """A forked child has the memory of the loop but not its thread."""
    global _current
    _current = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
