"""What Python does around an exception that is being handled, for code that runs outside of its `except` clause."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def while_handling(error: BaseException, function: Callable[..., T], *args: Any) -> T:
    """Call a function as in an `except` clause: for a bare raise, sys.exc_info() and `__context__`."""
    trace = error.__traceback__
    try:
        raise error
    except BaseException:
        error.__traceback__ = trace
        return function(*args)


async def awaited_while_handling(
    error: BaseException, function: Callable[..., Coroutine[Any, Any, T]], *args: Any
) -> T:
    """The same for a coroutine function."""
    trace = error.__traceback__
    try:
        raise error
    except BaseException:
        error.__traceback__ = trace
        return await function(*args)


def set_context(error: BaseException, handled: BaseException | None) -> None:
    """Chain an exception to the one that was being handled when it was raised, unless Python has done so."""
    if handled is None or handled in _chain(error):
        return
    for above in _chain(handled):
        if above.__context__ is error:
            above.__context__ = None
    error.__context__ = handled


def _chain(error: BaseException) -> list[BaseException]:
    """An exception and the contexts above it."""
    chain = [error]
    while (above := chain[-1].__context__) is not None and above not in chain:
        chain.append(above)
    return chain


def is_caught(error: BaseException, classes: object) -> bool:
    """Whether `except classes` catches an exception. Raises TypeError for what is no class of exceptions."""
    each = classes if isinstance(classes, tuple) else (classes,)
    if not all(isinstance(one, type) and issubclass(one, BaseException) for one in each):
        raise TypeError("catching classes that do not inherit from BaseException is not allowed")
    return any(one in type(error).__mro__ for one in each)
