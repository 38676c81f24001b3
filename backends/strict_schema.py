"""JSON schemas as OpenAI's strict mode takes them: an object at the root, every property required, no others allowed.

What is changed makes a schema narrower or says the same in other words, so that a text which matches the result also
matches the schema that was asked for.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..ir.errors import Unsupported

_MAPS = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
_SINGLE = ("items",)
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def strict_schema(source: str) -> dict[str, Any]:
    """The schema for strict mode. Raises Unsupported for one that is not of an object."""
    schema = _without_root_reference(msgspec.json.decode(source))
    if schema.get("type") != "object":
        raise Unsupported(
            "OpenAI's servers take JSON schemas of objects only",
            help="make it a field of one: a dataclass, a TypedDict or {'type': 'object', 'properties': {...}}",
        )
    found: dict[str, Any] = _strict(schema)
    return found


def _without_root_reference(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose root only refers to one of its definitions, with that definition as its root."""
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    definitions = schema.get("$defs", {})
    if schema.keys() == {"$ref", "$defs"} and name in definitions:
        return {**definitions[name], "$defs": definitions}
    return schema


def _strict(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    found = dict(schema)
    for key in _MAPS:
        if isinstance(found.get(key), dict):
            found[key] = {name: _strict(part) for name, part in found[key].items()}
    for key in _LISTS:
        if isinstance(found.get(key), list):
            found[key] = [_strict(part) for part in found[key]]
    for key in _SINGLE:
        if key in found:
            found[key] = _strict(found[key])
    if found.get("type") == "object" and not isinstance(found.get("additionalProperties"), dict):
        found |= {"required": list(found.get("properties", ())), "additionalProperties": False}
    types = {_TYPES.get(type(value)) for value in found.get("enum", ())}
    if len(types) == 1 and "type" not in found:
        found |= {"type": types.pop()}
    return found
