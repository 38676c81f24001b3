"""Values of programs as JSON: what JSON cannot say is said by the fields that are shown, its items or its repr."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import numbers
from collections.abc import Mapping, Set
from pathlib import PurePath
from typing import Any

import msgspec

_DEEPEST = 64


def to_json(value: Any, *, indent: int | None = None) -> bytes:
    """The value as JSON in UTF-8, without a line break unless `indent` is given."""
    text = json.dumps(plain(value), ensure_ascii=False, indent=indent)
    # A lone surrogate has no UTF-8; the escape that stands in for it is also JSON's.
    return text.encode(errors="backslashreplace")


def plain(value: Any, depth: int = 0) -> Any:
    """The value made of None, bool, int, float, str, list and dict with str keys."""
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value, depth + 1)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, numbers.Real):  # numpy's numbers are such, too
        return _number(value)
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {_key(key): plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, Set):
            return [plain(item, depth + 1) for item in sorted(value, key=repr)]
        if isinstance(value, list | tuple):
            return [plain(item, depth + 1) for item in value]
        fields = _fields(value)
        if fields is not None:
            return {name: plain(getattr(value, name), depth + 1) for name in fields}
    return str(value) if isinstance(value, PurePath) else repr(value)


def _number(value: numbers.Real) -> int | float | str:
    if isinstance(value, numbers.Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _fields(value: Any) -> list[str] | None:
    if isinstance(value, msgspec.Struct):
        return list(value.__struct_fields__)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in dataclasses.fields(value) if field.repr]
    return None


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(plain(key, _DEEPEST))
