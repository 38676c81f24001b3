"""What a batch was: the program with all of its file that it uses, its options and its rows. Only the same can resume.

Differences are told in words: what is written down is source text, not its hash.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from ..runtime.request import SamplingParams
from .options import Options, default_backend
from .plain import to_json

Identity = dict[str, Any]
_MOST_LINES = 8
_LONG = 4000
_NAME = re.compile(r"[^\W\d]\w*")
_STANDARD_LIBRARY = os.path.dirname(inspect.__file__) + os.sep
_ADDRESS = re.compile(rb" at 0x[0-9a-f]+")


def identity(function: FunctionType, receiver: tuple[Any, ...], options: Options) -> Identity:
    """What results depend on besides the rows: the program's name, its source and the options that are set.

    receiver: the object that a method is bound to, if it is one.
    """
    found = sources(function)
    for value in receiver:
        owner = value if isinstance(value, type) else type(value)
        found |= {owner.__name__: _source(owner), "self": _source(getattr(value, "__dict__", value))}
    return {"program": function.__name__, "source": found, "options": _options(options)}


def row_key(row: Mapping[str, Any]) -> str:
    """A hash of a row's arguments: 16 hexadecimal digits."""
    # An object's address in its repr says nothing of what it is.
    return _hash(_ADDRESS.sub(b"", to_json(row)))


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def sources(function: FunctionType) -> dict[str, str]:
    """The source of a function and of what it uses of its own file, or of its package's: functions, classes, constants,
    by name.
    """
    from ..compiler.portable import surroundings

    found: dict[str, str] = {}
    todo: list[tuple[str, Any]] = [(function.__name__, function)]
    while todo:
        name, value = todo.pop()
        if name in found:
            continue
        found[name] = _source(value)
        if isinstance(value, FunctionType):
            todo += [(used, _plain_function(other)) for used, other in surroundings(value) if _is_own(other, function)]
    return found


def code_identity(code: str, owner: FunctionType) -> str:
    """A hash of some host code of a function, with all code of the user's that it may call: of the function's own file
    as far as it is named, of others the whole file.
    """
    from ..compiler.portable import surroundings

    found = {"": code}
    names = set(_NAME.findall(code))
    todo = [(name, value) for name, value in surroundings(owner) if name in names]
    while todo:
        name, value = todo.pop()
        value = _plain_function(value)
        module = value if isinstance(value, ModuleType) else sys.modules.get(str(getattr(value, "__module__", "")))
        if isinstance(value, FunctionType | type | ModuleType) and not _is_own(value, owner):
            key = f"module {getattr(module, '__name__', '')}"
            if key not in found and module is not None and _is_users(module):
                found[key] = _source_of_module(module)
                todo += list(vars(module).items())
        elif name not in found and _is_own(value, owner):
            found[name] = _source(value)
            todo += surroundings(value) if isinstance(value, FunctionType) else []
    return _hash(to_json(dict(sorted(found.items()))))


def _is_users(module: ModuleType) -> bool:
    """Whether a module is neither Python's, nor installed, nor ramify's."""
    file = getattr(module, "__file__", None)
    ours = module.__name__.partition(".")[0] == __name__.partition(".")[0]
    return file is not None and not ours and not file.startswith(_STANDARD_LIBRARY) and "-packages" not in file


def _source_of_module(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        return ""


def _plain_function(value: Any) -> Any:
    """A program's function; any other value as it is."""
    return value.fn if getattr(value, "__ramify__", None) == "program" else value


def _is_own(value: Any, function: FunctionType) -> bool:
    """Whether a value belongs to the function's file or package: what is imported from elsewhere is taken as it is."""
    value = _plain_function(value)
    home = getattr(value, "__module__", None)
    if isinstance(value, FunctionType | type):
        package = function.__module__.rpartition(".")[0]
        return home == function.__module__ or (package != "" and str(home).rpartition(".")[0] == package)
    return value is None or isinstance(value, str | int | float | bool | list | tuple | dict | set | frozenset)


def _source(value: Any) -> str:
    if not isinstance(value, FunctionType | type):
        text = _ADDRESS.sub(b"", to_json(value))
        return text.decode() if len(text) <= _LONG else f"{len(text)} characters, {_hash(text)}"
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        code = getattr(value, "__code__", None)
        return "" if code is None else f"code {_hash(code.co_code)}"


def _options(options: Options) -> dict[str, Any]:
    """The model, and the sampling options that are not the usual ones."""
    given = {field.name: getattr(options.sampling, field.name) for field in fields(SamplingParams)}
    usual = SamplingParams()
    chosen = {name: value for name, value in given.items() if value != getattr(usual, name)}
    return {"model": _model(options), **chosen}


def _model(options: Options) -> str:
    model = default_backend() if options.backend is None else options.backend
    if not isinstance(model, str | Path):
        return model.name
    if Path(model).is_dir():
        return str(Path(model).resolve())
    name, _, weights = str(model).rpartition(":")
    return f"{Path(name).resolve()}:{weights}" if name and Path(name).is_dir() else str(model)


def difference(before: Mapping[str, Any], now: Identity) -> str | None:
    """What an earlier batch was that is no longer so, in words that follow "the output of"; None when it is the same.

    Raises KeyError or AttributeError for what is no identity.
    """
    if before["program"] != now["program"]:
        return f"another program: {before['program']}, not {now['program']}"
    if changed := _differing(before["source"], now["source"]):
        return f"an earlier version of {now['program']}: {_changes(*changed[0])}"
    others = [f"{name} = {old} there, {new} here" for name, old, new in _differing(before["options"], now["options"])]
    return f"other options: {', '.join(others)}" if others else None


def _differing(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """The names whose values differ, with both values; None where there is none."""
    names = before | now
    return [(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]


def _changes(name: str, before: str | None, now: str | None) -> str:
    if before is None:
        return f"{name} is new"
    if now is None:
        return f"{name} is gone"
    if "\n" not in before + now:
        return f"{name} was {_head(before)} and is {_head(now)} now"
    _, _, *lines = difflib.unified_diff(before.splitlines(), now.splitlines(), lineterm="", n=0)
    shown = [line for line in lines if not line.startswith("@@")]
    more = [f"... and {len(shown) - _MOST_LINES} more lines"] if len(shown) > _MOST_LINES else []
    listed = [f"    {line}" for line in [*shown[:_MOST_LINES], *more]]
    return "\n".join([f"the source of {name} has changed since", *listed])


def _head(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
