"""The values of `--arg name=value`, read in the light of the program's parameters."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..ir.errors import UsageError, nearest
from .program import Program

_PLAIN: dict[type, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    bool: (bool,),
    list: (list,),
    dict: (dict,),
}


def parse_arguments(program: Program, given: Sequence[str]) -> dict[str, Any]:
    """The arguments that `name=value` texts stand for.

    A value is JSON where it parses and its parameter is not annotated as a text; `@file` stands for the file's content,
    `@@` for a text that begins with `@`. Raises UsageError.
    """
    hints = _hints(program)
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--arg takes name=value, not {text!r}")
        if name in values:
            raise UsageError(f"--arg {name} is given twice")
        _check_name(program, name)
        values[name] = _value(name, _content(name, value), hints.get(name, inspect.Parameter.empty))
    return values


def _hints(program: Program) -> dict[str, Any]:
    try:
        return typing.get_type_hints(program.fn)
    except Exception:  # annotations are the user's code; those that mean nothing are as good as none
        return {name: annotation for name, annotation in program.fn.__annotations__.items() if annotation != "str"} | {
            name: str for name, annotation in program.fn.__annotations__.items() if annotation == "str"
        }


def _check_name(program: Program, name: str) -> None:
    parameters = program.signature.parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if name not in parameters and not takes_any:
        listing = "its arguments are" if parameters else "it takes no arguments"
        raise UsageError(f"{program.name} has no argument {name!r}", help=nearest(name, parameters, listing).strip())


def _content(name: str, value: str) -> str:
    if value.startswith("@@"):
        return value[1:]
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"--arg {name}: the file {value[1:]} cannot be read: {reason}",
            help=f"for a text that begins with @, write {name}=@@...",
        ) from None


def _value(name: str, text: str, hint: Any) -> Any:
    kinds = _kinds(hint)
    if kinds == {str}:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if str in kinds and not (value is None and type(None) in kinds):
        return value if _fits(value, kinds - {str}) else text
    if not _fits(value, kinds):
        wanted = " or ".join(sorted(kind.__name__ for kind in kinds))
        raise UsageError(f"--arg {name} must be {wanted}, got {text!r}", help="values are written as JSON")
    return value


def _kinds(hint: Any) -> set[type]:
    """The classes that a parameter takes; empty when anything may do."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        parts = [_kinds(part) for part in typing.get_args(hint)]
        return set().union(*parts) if all(parts) else set()
    kind = typing.get_origin(hint) or hint
    return {kind} if kind in (*_PLAIN, str, type(None)) else set()


def _fits(value: Any, kinds: set[type]) -> bool:
    if not kinds:
        return True
    accepted = tuple(kind for each in kinds for kind in _PLAIN.get(each, (each,)))
    return isinstance(value, accepted) and (bool in kinds or not isinstance(value, bool))
