"""Whether a call of a method runs the function that it was compiled to: the object may be of another class by now."""

from __future__ import annotations

from types import FunctionType
from typing import Any

_MISSING = object()


def runs(receiver: object, name: str, function: FunctionType) -> bool:
    """Whether `receiver.name(...)` calls `function(receiver, ...)`. Runs no code of the user's."""
    kind = type(receiver)
    if kind.__getattribute__ is not object.__getattribute__ or name in _own_attributes(receiver):
        return False
    found = next((each.__dict__[name] for each in kind.__mro__ if name in each.__dict__), _MISSING)
    if getattr(found, "__ramify__", None) == "program":
        return found.fn is function and found.binds == "instance"  # type: ignore[attr-defined]
    return found is function


def _own_attributes(receiver: object) -> Any:
    try:
        return object.__getattribute__(receiver, "__dict__")
    except AttributeError:  # it has slots only
        return ()
