"""Brings what happens on other threads to the thread that waits: stream events, finished rows, the end.

The user's callbacks are called there, so they may print, sleep or raise; Ctrl-C reaches the same thread.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from ..runtime.pending import Pending, WouldBlock, blocking, this_thread

_CANCEL_SECONDS = 10.0


class Mailbox:
    """A queue of calls to make on the waiting thread."""

    def __init__(self) -> None:
        self._letters: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = queue.SimpleQueue()

    def post(self, callback: Callable[..., None], *args: Any) -> None:
        """Have `callback(*args)` called on the waiting thread. Thread-safe."""
        self._letters.put((callback, args))

    def wait(self, done: Pending[Any], cancel: Callable[[], None]) -> None:
        """Make the calls until `done` is. An exception (also Ctrl-C) cancels, waits for the release, and goes on up."""
        if this_thread.is_loop:
            raise WouldBlock("a program was run on ramify's loop thread, which must not wait")
        done.add_callback(lambda _: self._letters.put(None))
        try:
            with blocking():
                while (letter := self._letters.get()) is not None:
                    callback, args = letter
                    callback(*args)
        except BaseException:
            cancel()
            self._drain()
            raise

    def _drain(self) -> None:
        try:
            while self._letters.get(timeout=_CANCEL_SECONDS) is not None:
                pass
        except queue.Empty:
            return
