"""Values that were written as JSON, made again what they were: dataclasses, structs, enums, tuples, sets.

Of what class a value was is written beside it where it is one that JSON does not have; what the program's annotation
says it returns tells the rest. A value stays as JSON has it unless what is made of it would be written the same.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
import typing
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import msgspec

from .plain import plain
from .run import Run


def written_types(run: Run) -> dict[str, Any]:
    """What a run's line says besides: {"types": {"value": CLASS, "vars": {NAME: CLASS}}}, each class as MODULE:NAME.

    Only of values whose class JSON cannot tell; empty where there are none.
    """
    value = _class_name(run.value)
    names = {name: told for name, each in run.vars.items() if (told := _class_name(each)) is not None}
    types = ({} if value is None else {"value": value}) | ({"vars": names} if names else {})
    return {"types": types} if types else {}


def return_type(function: Callable[..., Any]) -> Any:
    """What a function's annotation says that it returns; None where it says nothing that is known."""
    try:
        return typing.get_type_hints(function).get("return")
    except Exception:  # names that mean nothing here: annotations need not be types
        return None


def restored(record: Mapping[str, Any], returns: Any) -> dict[str, Any]:
    """A run's record with its value and variables made what they were. returns: the annotation of the program."""
    types = record.get("types", {})
    names = types.get("vars", {})
    value = _made(record["value"], _known_class(types.get("value")), returns)
    told = {name: _made(each, _known_class(names.get(name))) for name, each in record["vars"].items()}
    return {**record, "value": value, "vars": told}


def _made(written: Any, *types: Any) -> Any:
    """What was written as a value of the first of some types that can be it."""
    for type_ in types:
        if written is not None and type_ is not None:
            try:
                value = msgspec.convert(written, type_, str_keys=True)
                if plain(value) == written and _is_whole(value):
                    return value
            except Exception:  # a class may refuse what it is made of in any way
                continue
    return written


def _class_name(value: Any) -> str | None:
    kind = type(value)
    return f"{kind.__module__}:{kind.__qualname__}" if _is_record(kind) else None


def _known_class(name: str | None) -> type | None:
    """A class by its name. Nothing is imported for it: what stands in a file must not run code."""
    if name is None:
        return None
    module, _, path = name.partition(":")
    found: Any = reduce(lambda part, step: getattr(part, step, None), path.split("."), sys.modules.get(module))
    return found if isinstance(found, type) and _is_record(found) else None


def _is_record(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct | enum.Enum)


def _is_whole(value: Any) -> bool:
    """Whether all of a value was written: fields that a dataclass does not show were not."""
    if isinstance(value, Mapping):
        return all(map(_is_whole, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_whole, value))
    if dataclasses.is_dataclass(value):
        return all(each.repr and _is_whole(getattr(value, each.name)) for each in dataclasses.fields(value))
    if isinstance(value, msgspec.Struct):
        return all(_is_whole(getattr(value, name)) for name in value.__struct_fields__)
    return True
