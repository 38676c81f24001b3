"""What runs the host code of a prediction: where it only computes (runtime/effects.py), else it is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..ir.errors import RamifyError
from ..runtime.context import Context
from ..runtime.effects import is_plain
from ..runtime.host import Escaped, HostOp
from ..runtime.hostpool import host_pool
from ..runtime.pending import Pending

_LAZY = ("generator", "map", "filter")


class Refused(RamifyError):
    """Host code that a prediction does not execute."""


class Guard:
    """Runs the host code of a run, or refuses to. uses_threads: whether any of it has run on a host thread."""

    def __init__(self, context: Context) -> None:
        self.uses_threads = False
        self._run_host = context.run_host
        self._own: list[object] = []  # iterators that run code of the program, which was looked at

    def __call__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Pending[Any]:
        """Run the code here, or on a host thread if it may wait for an answer. On the loop thread."""
        why = self._why_refused(function, args)
        if why is not None:
            return _refusal(why)
        if function.holds_state(*args) if isinstance(function, HostOp) else self._is_own(args[0]):
            self.uses_threads = True
            done: Pending[Any] = host_pool().submit(partial(_call, self._run_host, function, *args))
        else:
            done = _done(function, args)
        done.add_callback(self._remember)
        return done

    def _why_refused(self, function: Callable[..., Any], args: tuple[Any, ...]) -> str | None:
        if isinstance(function, HostOp):
            return function.why_not_harmless(*args)
        if function is bool:
            return None if is_plain(args[0]) else "the truth of an object"
        if function in (iter, next):
            is_known = is_plain(args[0]) or self._is_own(args[0]) or _is_builtin_iterator(args[0])
            return None if is_known else "an iterator"
        return "a function that runs as Python"

    def _is_own(self, value: object) -> bool:
        return any(value is each for each in self._own)

    def _remember(self, done: Pending[Any]) -> None:
        """Lazy iterators that code which only computes gives do no more themselves."""
        if done.error is None:
            given = done.result()
            some = given if isinstance(given, list) else [given]
            self._own += [each for each in some if type(each).__name__ in _LAZY and not self._is_own(each)]


def _refusal(why: str) -> Pending[Any]:
    refused: Pending[Any] = Pending()
    refused.set_error(
        Refused(
            f"host code that may do more than compute: {why}",
            help="--run-host (run_host=True) lets a prediction run all of the program's own code, tools included",
        )
    )
    return refused


def _done(function: Callable[..., Any], args: tuple[Any, ...]) -> Pending[Any]:
    done: Pending[Any] = Pending()
    try:
        done.set_result(function(*args))
    except Exception as error:
        done.set_error(error)
    return done


def _call(run: Callable[..., Any], *args: Any) -> Any:
    """Call on a host thread. A StopIteration would mean something else in coroutines."""
    try:
        return run(*args)
    except StopIteration as error:
        raise Escaped(error) from None


def _is_builtin_iterator(value: object) -> bool:
    return type(value).__module__ == "builtins" and type(value).__name__ not in _LAZY
