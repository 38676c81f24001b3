"""Brings what happens on other threads to the thread that waits: stream events, finished rows, the end.

The user's callbacks are called there, so they may print, sleep or raise; Ctrl-C reaches the same thread.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from ..runtime.pending import Pending, WouldBlock, blocking, this_thread, turns

CANCEL_SECONDS = 10.0
_Letter = tuple[Callable[..., None], tuple[Any, ...]]


class Mailbox:
    """A queue of calls to make on the waiting thread. is_closing: something was raised there; only news matter now."""

    def __init__(self) -> None:
        self.is_closing = False
        self._letters: queue.SimpleQueue[_Letter | None] = queue.SimpleQueue()

    def post(self, callback: Callable[..., None], *args: Any) -> None:
        """Have `callback(*args)` called on the waiting thread. Thread-safe."""
        self._letters.put((callback, args))

    def take_now(self) -> None:
        """Make the calls that have come by now."""
        while not self._letters.empty():
            letter = self._letters.get()
            if letter is not None:
                callback, args = letter
                callback(*args)

    def take(self, timeout: float | None = None) -> None:
        """Wait for a call, and make it and all others that have come by then. Raises queue.Empty after `timeout`."""
        _check_may_wait()
        with blocking():
            letter = self._next(timeout)
        if letter is not None:
            callback, args = letter
            callback(*args)
        self.take_now()

    def wait(self, done: Pending[Any], cancel: Callable[[], None]) -> None:
        """Make the calls until `done` is. An exception cancels, waits for the release, and goes on up.

        On Ctrl-C the calls are still made, so that what was finished by then is not lost.
        """
        _check_may_wait()
        done.add_callback(lambda _: self._letters.put(None))
        try:
            with blocking():
                self._deliver(None)
        except BaseException as error:
            self.is_closing = True
            cancel()
            if isinstance(error, KeyboardInterrupt):
                self._deliver(CANCEL_SECONDS)
            else:
                self._drop()
            raise

    def _next(self, timeout: float | None) -> _Letter | None:
        for turn in turns(timeout):
            try:
                return self._letters.get(timeout=turn)
            except queue.Empty:
                pass
        raise queue.Empty

    def _deliver(self, timeout: float | None) -> None:
        try:
            while (letter := self._next(timeout)) is not None:
                callback, args = letter
                callback(*args)
        except queue.Empty:
            return

    def _drop(self) -> None:
        try:
            while self._next(CANCEL_SECONDS) is not None:
                pass
        except queue.Empty:
            return


def _check_may_wait() -> None:
    if this_thread.is_loop:
        raise WouldBlock("a program was run on ramify's loop thread, which must not wait")
