"""Threads for host code that may block: a bounded number of them work, any number may stand still.

A thread that waits for a Pending gives its share to another, so that programs which run programs that run programs can
never use up the pool and wait for one another forever. Few threads are started at once, and more while tasks are left
lying: code that computes gains nothing from them, code that waits for a disk or the network does.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from .loop import loop
from .pending import Pending, this_thread

T = TypeVar("T")
_IDLE_SECONDS = 10.0
# So many threads start as soon as there are tasks for them; each further one when no task was taken for so long.
_AT_ONCE = 4
_STUCK_SECONDS = 0.005
# How long the process's end waits for code that still runs.
_END_SECONDS = 0.5


class HostPool:
    """Runs functions on daemon threads; at most `limit` of them work at a time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._tasks: deque[tuple[Callable[[], Any], Pending[Any]]] = deque()
        self._changed = threading.Condition()
        self._num_taken = 0
        self._is_watched = False
        self._idle = 0
        self._working = 0  # threads that neither idle nor stand still in `blocking()`

    def submit(self, function: Callable[[], T]) -> Pending[T]:
        """Call `function()` on a host thread; the result arrives on the loop thread. Thread-safe."""
        pending: Pending[T] = Pending()
        with self._changed:
            self._tasks.append((function, pending))
            self._staff()
        return pending

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits for a thread and none works; those that stand still do not count."""
        with self._changed:
            return not self._tasks and self._working == 0

    def block(self) -> None:
        """The calling thread of this pool stands still from now on."""
        with self._changed:
            self._working -= 1
            self._staff()

    def unblock(self) -> None:
        """It goes on. The bound may be exceeded for a while: making it wait for a share could deadlock."""
        with self._changed:
            self._working += 1

    def end(self) -> None:
        """Begin nothing more, and give what runs half a second: the process ends.

        The interpreter stops daemon threads wherever they are, and what one is just printing then comes out garbled.
        """
        with self._changed:
            self._tasks.clear()
        until = time.monotonic() + _END_SECONDS
        while not self.is_quiet and time.monotonic() < until:
            time.sleep(0.005)

    def _staff(self) -> None:
        """See to it that a waiting task gets a thread, if the bound allows. Called with the lock held."""
        if not self._tasks or self._working >= self.limit:
            return
        if self._idle:
            self._changed.notify()
        elif self._working < _AT_ONCE:
            self._start()
        elif not self._is_watched:
            self._is_watched = True
            loop().later(_STUCK_SECONDS, self._look, self._num_taken)

    def _start(self) -> None:
        self._working += 1
        threading.Thread(target=self._serve, name="ramify-host", daemon=True).start()

    def _look(self, num_taken: int) -> None:
        """Start one more thread if the tasks lie where they lay."""
        with self._changed:
            self._is_watched = False
            if self._tasks and num_taken == self._num_taken and self._working < self.limit and not self._idle:
                self._start()
            self._staff()

    def _serve(self) -> None:
        this_thread.gate = self
        while (task := self._next()) is not None:
            _perform(*task)
            del task

    def _next(self) -> tuple[Callable[[], Any], Pending[Any]] | None:
        """The next task for the calling worker, which counts as working; None when it should end."""
        with self._changed:
            while not self._tasks or self._working > self.limit:
                self._working -= 1
                self._idle += 1
                woken = self._changed.wait(_IDLE_SECONDS)
                self._idle -= 1
                if not woken and not self._tasks:
                    return None
                self._working += 1
            task = self._tasks.popleft()
            self._num_taken += 1
            self._staff()
            return task


def _perform(function: Callable[[], Any], pending: Pending[Any]) -> None:
    try:
        result = function()
    except BaseException as error:
        loop().soon(pending.set_error, error)
    else:
        loop().soon(pending.set_result, result)


_pool: HostPool | None = None
_starting = threading.Lock()


def host_pool() -> HostPool:
    """The process's pool."""
    global _pool
    with _starting:
        if _pool is None:
            _pool = HostPool(max(8, 2 * (os.cpu_count() or 1)))
            atexit.register(_pool.end)
        return _pool


def _forget() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
