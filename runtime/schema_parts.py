"""The schemas inside a JSON schema, and where they stand: a path is a JSON pointer as in `$ref`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .schema_keywords import OF_NAMED_SCHEMAS, OF_SCHEMA, OF_SCHEMAS

Json = dict[str, Any]


def at(path: str, *names: str | int) -> str:
    """The path of something inside a schema."""
    return "/".join((path, *(str(name).replace("~", "~0").replace("/", "~1") for name in names)))


def parts_of(schema: Any, path: str = "#") -> Iterator[tuple[str, Any]]:
    """The schemas directly inside a schema, with their paths."""
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        if isinstance(value, list) and (keyword in OF_SCHEMAS or keyword == "items"):
            yield from ((at(path, keyword, index), part) for index, part in enumerate(value))
        elif keyword in OF_SCHEMA:
            yield at(path, keyword), value
        elif isinstance(value, dict) and keyword in OF_NAMED_SCHEMAS:
            yield from ((at(path, keyword, name), part) for name, part in value.items())


def all_parts(schema: Any, path: str = "#") -> Iterator[tuple[str, Any]]:
    """A schema and all schemas inside, with their paths."""
    yield path, schema
    for place, part in parts_of(schema, path):
        yield from all_parts(part, place)


def map_parts(schema: Json, path: str, change: Callable[[Any, str], Any]) -> Json:
    """A schema with the schemas directly inside changed. change: takes one and its path."""
    found = dict(schema)
    for keyword, value in schema.items():
        place = at(path, keyword)
        if keyword in OF_NAMED_SCHEMAS and isinstance(value, dict):
            found[keyword] = {name: change(part, at(place, name)) for name, part in value.items()}
        elif isinstance(value, list) and (keyword in OF_SCHEMAS or keyword == "items"):
            found[keyword] = [change(part, at(place, index)) for index, part in enumerate(value)]
        elif keyword in OF_SCHEMA:
            found[keyword] = change(value, place)
    return found
