"""What JSON Schema says, written down as plainly as possible: the reference that constraints are tested against."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]


def valid(value: Any, schema: Any, root: Any = None) -> bool:
    """Whether a value matches a schema of draft 2020-12 (and older ones' `dependencies`), without formats."""
    root = schema if root is None else root
    if isinstance(schema, bool):
        return schema

    def ok(part: Any, inner: Any = value) -> bool:
        return valid(inner, part, root)

    return all(
        CHECKS[keyword](value, given, schema, ok) for keyword, given in schema.items() if keyword in CHECKS
    ) and ("$ref" not in schema or ok(find(root, schema["$ref"])))


def find(root: Any, reference: str) -> Any:
    """What a local reference leads to."""
    for name in reference.split("/")[1:]:
        root = root[int(name)] if isinstance(root, list) else root[name]
    return root


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return (type(one) in (int, float) and type(other) in (int, float) and one == other) or (
        type(one) is type(other) and one == other
    )


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if isinstance(value, int | float):
        return name == "number" or (name == "integer" and float(value).is_integer())
    return isinstance(value, {"null": type(None), "string": str, "array": list, "object": dict}.get(name, ()))


def _only(kind: str, check: Callable[[Any, Any, Json, Any], bool]) -> Callable[[Any, Any, Json, Any], bool]:
    return lambda value, given, schema, ok: not _is(value, kind) or check(value, given, schema, ok)


def _extra(value: Json, schema: Json) -> list[Any]:
    patterns = schema.get("patternProperties", {})
    return [
        inner
        for name, inner in value.items()
        if name not in schema.get("properties", {}) and not any(re.search(pattern, name) for pattern in patterns)
    ]


def _depends(value: Json, given: Json, _: Json, ok: Any) -> bool:
    return all(
        set(needed) <= value.keys() if isinstance(needed, list) else ok(needed)
        for name, needed in given.items()
        if name in value
    )


def _distinct(value: list[Any], is_unique: bool, *_: Any) -> bool:
    return not is_unique or not any(same(a, b) for i, a in enumerate(value) for b in value[:i])


CHECKS: dict[str, Callable[[Any, Any, Json, Any], bool]] = {
    "type": lambda v, given, s, ok: any(_is(v, name) for name in ([given] if isinstance(given, str) else given)),
    "const": lambda v, given, s, ok: same(v, given),
    "enum": lambda v, given, s, ok: any(same(v, each) for each in given),
    "allOf": lambda v, given, s, ok: all(map(ok, given)),
    "anyOf": lambda v, given, s, ok: any(map(ok, given)),
    "oneOf": lambda v, given, s, ok: sum(map(ok, given)) == 1,
    "not": lambda v, given, s, ok: not ok(given),
    "if": lambda v, given, s, ok: ok(s.get("then", True)) if ok(given) else ok(s.get("else", True)),
    "minimum": _only("number", lambda v, given, s, ok: v >= given),
    "maximum": _only("number", lambda v, given, s, ok: v <= given),
    "exclusiveMinimum": _only("number", lambda v, given, s, ok: v > given),
    "exclusiveMaximum": _only("number", lambda v, given, s, ok: v < given),
    "multipleOf": _only("number", lambda v, given, s, ok: float(v / given).is_integer()),
    "minLength": _only("string", lambda v, given, s, ok: len(v) >= given),
    "maxLength": _only("string", lambda v, given, s, ok: len(v) <= given),
    "pattern": _only("string", lambda v, given, s, ok: re.search(given, v) is not None),
    "minItems": _only("array", lambda v, given, s, ok: len(v) >= given),
    "maxItems": _only("array", lambda v, given, s, ok: len(v) <= given),
    "uniqueItems": _only("array", _distinct),
    "prefixItems": _only("array", lambda v, given, s, ok: all(map(ok, given, v))),
    "items": _only("array", lambda v, given, s, ok: all(ok(given, x) for x in v[len(s.get("prefixItems", ())) :])),
    "minProperties": _only("object", lambda v, given, s, ok: len(v) >= given),
    "maxProperties": _only("object", lambda v, given, s, ok: len(v) <= given),
    "required": _only("object", lambda v, given, s, ok: set(given) <= v.keys()),
    "propertyNames": _only("object", lambda v, given, s, ok: all(ok(given, name) for name in v)),
    "properties": _only("object", lambda v, given, s, ok: all(ok(p, v[k]) for k, p in given.items() if k in v)),
    "patternProperties": _only(
        "object",
        lambda v, given, s, ok: all(ok(part, v[k]) for p, part in given.items() for k in v if re.search(p, k)),
    ),
    "additionalProperties": _only("object", lambda v, given, s, ok: all(ok(given, each) for each in _extra(v, s))),
    "dependencies": _only("object", _depends),
    "dependentRequired": _only("object", _depends),
    "dependentSchemas": _only("object", _depends),
}
