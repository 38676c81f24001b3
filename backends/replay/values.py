"""Values of programs as data that a file can hold, and back: what comes back is of the same type.

Values of builtin types stand for themselves, or under a tag where the file has no such type; objects of dataclasses,
structs, enums and named tuples, and exceptions, are written with the name of their class. Reading imports nothing: a
class is one of data that the process knows by then, and of its code at most the `__post_init__` of a struct runs.
"""

from __future__ import annotations

import builtins
import dataclasses
import datetime
import decimal
import enum
import pathlib
import re
import sys
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from ...ir.errors import RamifyError, RecordedError

_TAG, _VALUE, _CLASS = "$", "value", "class"
_PLAIN = (type(None), bool, float, bytes)
_DEEPEST = 100
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_SMALL = range(-(2**63), 2**63)
# Types whose text says all of a value.
_BY_TEXT: dict[type, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    datetime.datetime: (datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    datetime.date: (datetime.date.isoformat, datetime.date.fromisoformat),
    datetime.time: (datetime.time.isoformat, datetime.time.fromisoformat),
    decimal.Decimal: (str, decimal.Decimal),
    uuid.UUID: (str, uuid.UUID),
    complex: (repr, complex),
    type(pathlib.Path()): (str, pathlib.Path),
}
_BY_NAME = {kind.__name__: kind for kind in _BY_TEXT}


class Unencodable(Exception):
    """A value that cannot be written down; says why."""


class Unknown(Exception):
    """A written value whose class is not known here; says which."""


def encode(value: Any, depth: int = 0) -> Any:
    """The value as data. Raises Unencodable."""
    kind = type(value)
    if kind in _PLAIN or (kind is int and value in _SMALL) or (kind is str and _has_utf8(value)):
        return value
    if depth > _DEEPEST:
        raise Unencodable(f"a {kind.__name__} that is nested too deep, or holds itself")
    if kind is list:
        return [encode(item, depth + 1) for item in value]
    if kind is dict and all(type(key) is str and _has_utf8(key) for key in value) and _TAG not in value:
        return {key: encode(item, depth + 1) for key, item in value.items()}
    return _tagged(value, kind, depth + 1)


def _tagged(value: Any, kind: type, depth: int) -> dict[str, Any]:
    if kind is int:
        return {_TAG: "int", _VALUE: hex(value)}
    if kind is str:
        return {_TAG: "text", _VALUE: value.encode(errors="surrogatepass")}
    if kind is dict:
        pairs = [[encode(key, depth), encode(item, depth)] for key, item in value.items()]
        return {_TAG: "dict", _VALUE: pairs}
    if kind is tuple:
        return {_TAG: "tuple", _VALUE: [encode(item, depth) for item in value]}
    if kind in (set, frozenset):
        return {_TAG: kind.__name__, _VALUE: sorted((encode(item, depth) for item in value), key=repr)}
    if kind is range:
        return {_TAG: "range", _VALUE: [value.start, value.stop, value.step]}
    if kind is datetime.timedelta:
        return {_TAG: "timedelta", _VALUE: [value.days, value.seconds, value.microseconds]}
    if kind in _BY_TEXT:
        return {_TAG: kind.__name__, _VALUE: _BY_TEXT[kind][0](value)}
    if isinstance(value, BaseException):
        return encode_error(value, depth)
    return _object(value, kind, depth)


def _has_utf8(text: str) -> bool:
    """Whether a text has no lone surrogates."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _object(value: Any, kind: type, depth: int) -> dict[str, Any]:
    name = _named(kind)
    if isinstance(value, enum.Enum):
        return {_TAG: "enum", _CLASS: name, _VALUE: value.name}
    if isinstance(value, msgspec.Struct):
        fields = {each: getattr(value, each) for each in value.__struct_fields__}
    elif dataclasses.is_dataclass(value):
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        fields = dict(zip(value._fields, value, strict=True))
    else:
        raise Unencodable(f"a {kind.__name__}")
    return {_TAG: "object", _CLASS: name, _VALUE: {each: encode(item, depth) for each, item in fields.items()}}


def _named(kind: type) -> str:
    """The name of a class, under which it is found again. Raises Unencodable."""
    name = f"{kind.__module__}:{kind.__qualname__}"
    if _find(name) is not kind:
        raise Unencodable(f"a {kind.__name__}, a class that no module names")
    return name


def _find(name: str) -> Any:
    """What a module that is loaded has under a name; None for nothing."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def encode_error(error: BaseException, depth: int = 0) -> dict[str, Any]:
    """An exception as data: what of it cannot be written is left out."""
    kind = type(error)
    held = {name: item for name, item in vars(error).items() if name not in ("span", "__notes__")}
    return {
        _TAG: "error",
        _CLASS: f"{kind.__module__}:{kind.__qualname__}",
        "text": getattr(error, "message", None) or str(error),
        "args": _encoded_or_none(_arguments(error), depth),
        _VALUE: {name: data for name, item in held.items() if (data := _encoded_or_none(item, depth)) is not None},
    }


def _arguments(error: BaseException) -> list[Any]:
    """What an exception is made of again: an OSError has told its file apart."""
    if type(error).__module__ == "builtins":
        made = error.__reduce__()
        if isinstance(made, tuple) and isinstance(made[1], tuple):
            return list(made[1])
    return list(error.args)


def _encoded_or_none(value: Any, depth: int) -> Any:
    try:
        return encode(value, depth + 1)
    except Unencodable:
        return None


def decode(data: Any) -> Any:
    """The value that was written. Raises Unknown."""
    if type(data) is list:
        return [decode(item) for item in data]
    if type(data) is not dict:
        return data
    tag = data.get(_TAG)
    return {key: decode(item) for key, item in data.items()} if tag is None else _untagged(tag, data)


def _untagged(tag: str, data: dict[str, Any]) -> Any:
    value: Any = data.get(_VALUE)
    match tag:
        case "int":
            return int(value, 16)
        case "text":
            return value.decode(errors="surrogatepass")
        case "dict":
            return {decode(key): decode(item) for key, item in value}
        case "tuple" | "set" | "frozenset":
            return getattr(builtins, tag)(map(decode, value))
        case "range":
            return range(*value)
        case "timedelta":
            return datetime.timedelta(*value)
        case "error":
            return decode_error(data)
        case "enum":
            return _known(data, enum.Enum)[value]
        case "object":
            return _made(_known(data, object), {name: decode(item) for name, item in value.items()})
    return _BY_TEXT[_BY_NAME[tag]][1](value)


def _known(data: dict[str, Any], base: type) -> Any:
    found = _find(data[_CLASS])
    if not (isinstance(found, type) and issubclass(found, base)):
        raise Unknown(f"the class {data[_CLASS].replace(':', '.')} is not known here")
    return found


def _made(kind: Any, fields: dict[str, Any]) -> Any:
    """An object with these fields, without a call of its class, save a struct's."""
    if issubclass(kind, tuple):
        return tuple.__new__(kind, fields.values())
    if issubclass(kind, msgspec.Struct):
        return kind(**fields)
    if not dataclasses.is_dataclass(kind):
        raise Unknown(f"the class {kind.__module__}.{kind.__qualname__} is no data any more")
    plain: Any = kind  # which is_dataclass has narrowed
    made = object.__new__(plain)
    for name, item in fields.items():
        object.__setattr__(made, name, item)
    return made


def decode_error(data: dict[str, Any]) -> BaseException:
    """The exception that was written; a RecordedError where its class is not known here."""
    found = _find(data[_CLASS])
    try:
        if not (isinstance(found, type) and issubclass(found, BaseException)) or data["args"] is None:
            raise Unknown
        args = decode(data["args"])
        # The class's own __init__ does not run: it may take other arguments, or do anything.
        error: BaseException
        if found.__module__ == "builtins":
            error = found(*args)
        else:
            error = found.__new__(found, *args)
            error.args = tuple(args)
        vars(error).update({name: decode(item) for name, item in data[_VALUE].items()})
    except Exception:
        return RecordedError(data["text"], kind=data[_CLASS].rpartition(":")[2])
    if isinstance(error, RamifyError):
        for name in ("span", "help", "message"):
            vars(error).setdefault(name, data["text"] if name == "message" else None)
    return error


def described(value: Any, depth: int = 0) -> Any:
    """A value as data that tells it from others, whatever it is: what cannot be written is told by its repr."""
    try:
        return encode(value, depth)
    except Unencodable:
        pass
    if depth > _DEEPEST:
        return "..."
    if type(value) in (list, tuple, set, frozenset):
        items = [described(item, depth + 1) for item in value]
        return [type(value).__name__, *(items if type(value) in (list, tuple) else sorted(items, key=repr))]
    if type(value) is dict:
        return ["dict", *([described(key, depth + 1), described(item, depth + 1)] for key, item in value.items())]
    return ["repr", _ADDRESS.sub("", _repr(value))]


def told(value: Any) -> tuple[Any, bool]:
    """A value as data that tells it from others, and whether that is all of it, so that `decode` gives it again."""
    try:
        return encode(value), True
    except Unencodable:
        return described(value), False


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # a class of the user's may raise what it likes
        return f"{type(value).__name__} ({type(error).__name__})"
