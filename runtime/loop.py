"""The event loop that every run shares: one daemon thread per process, started at the first use.

Programs therefore run from plain scripts, from threads, and from notebooks whose own loop is running. `post` is the way
into it from any thread; many posts cost one wake-up.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from .pending import this_thread


class Loop:
    """The loop thread and its inbox."""

    def __init__(self) -> None:
        self.asyncio = asyncio.new_event_loop()
        self._inbox: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._awake = False
        self._thread = threading.Thread(target=self._serve, name="ramify-loop", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        this_thread.is_loop = True
        asyncio.set_event_loop(self.asyncio)
        self.asyncio.run_forever()

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Call `callback(*args)` on the loop thread, in the order of posts. Thread-safe."""
        self._inbox.append((callback, args))
        if not self._awake:
            self._awake = True
            self.asyncio.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        # A post that comes after this line wakes the loop again; at worst that drain finds nothing to do.
        self._awake = False
        for _ in range(len(self._inbox)):
            callback, args = self._inbox.popleft()
            try:
                callback(*args)
            except Exception as error:
                self._report(callback, error)
        if self._inbox and not self._awake:
            self._awake = True
            self.asyncio.call_soon(self._drain)

    def _report(self, callback: Callable[..., object], error: Exception) -> None:
        self.asyncio.call_exception_handler({"message": f"a callback failed: {callback!r}", "exception": error})

    def later(self, seconds: float, callback: Callable[..., object], *args: Any) -> None:
        """Call `callback(*args)` on the loop thread after a delay. Thread-safe."""
        if this_thread.is_loop:
            self.asyncio.call_later(seconds, callback, *args)
        else:
            self.post(self.later, seconds, callback, *args)


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
        loop().post(callback, *args)


def _forget() -> None:
    """A forked child has the memory of the loop but not its thread."""
    global _current
    _current = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
