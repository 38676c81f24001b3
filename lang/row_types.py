"""Rows of data whose values are not what the program's annotations say: found before anything runs.

Only annotations of JSON's types count (str, int, float, bool, None, lists, dicts, Literal, unions of these), and only
values of those types: what else a program is given, by rows made in Python, is its own affair. An int is a float, too.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

_SCALARS = (str, int, float, bool, type(None))
_WHOLE = (*_SCALARS, list, dict, Any)
_MADE_OF = (list, dict, Union, types.UnionType)


def row_types(function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters of a function whose annotations count, with their types."""
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # names that mean nothing here: annotations need not be types
        return {}
    return {name: hint for name, hint in hints.items() if _counts(hint)}


def _counts(hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return all(isinstance(value, str | int | None) for value in get_args(hint))
    if origin in _MADE_OF:
        return all(map(_counts, get_args(hint)))
    return hint in _WHOLE


def problem(values: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first value that is of another type than wanted, in words."""
    for name, value in values.items():
        if name in wanted and _is_json(value):
            try:
                msgspec.convert(value, wanted[name])
            except msgspec.ValidationError as error:
                message = str(error)
                return f"argument {name!r}: {message[:1].lower()}{message[1:]}"
    return None


def _is_json(value: Any) -> bool:
    todo = [value]
    while todo:
        each = todo.pop()
        if type(each) is list:
            todo += each
        elif type(each) is dict:
            todo += each.keys()
            todo += each.values()
        elif type(each) not in _SCALARS:
            return False
    return True
