"""One thread beside another: functions handed to it run in order, and whoever needs a result waits for it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """A daemon thread that starts with the first function and ends when nobody has this object any more."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._is_started = False
        weakref.finalize(self, self._todo.put, None).atexit = False

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Runs `function()` on the thread; the result, or what it raises, is the Future's. Thread-safe."""
        done: Future[T] = Future()
        self._start()
        self._todo.put(lambda: complete(done, function))
        return done

    def _start(self) -> None:
        with self._lock:
            if not self._is_started:
                self._is_started = True
                threading.Thread(target=_work, args=(self._todo,), name=self._name, daemon=True).start()


def complete(done: Future[T], function: Callable[[], T]) -> None:
    """Sets a Future to what a function returns or raises."""
    try:
        done.set_result(function())
    except BaseException as error:
        done.set_exception(error)


def _work(todo: SimpleQueue[Any]) -> None:
    while (task := todo.get()) is not None:
        task()
        del task  # it holds on to what it worked with
