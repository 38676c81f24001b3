"""What is certain about JSON schemas: which are opposites, which have a value, what they take at most.

Each answer is exact or says that nothing is known, so that a schema put in other words never gets wider or narrower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from .grammar import problem_of
from .schema_keywords import ENFORCED, FORMATS, REFUSED
from .schema_parts import Json, map_parts

Resolve = Callable[[str], Any]
TYPES = ("null", "boolean", "number", "string", "array", "object")
_PYTHON = {
    type(None): "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}
_MAX_DEPTH = 12


def types_of(value: Any) -> str:
    """The type of a JSON value."""
    return _PYTHON[type(value)]


def allowed_types(schema: Any) -> set[str]:
    """The types that the keyword `type` allows; of numbers, integers are no type of their own."""
    given = schema.get("type", list(TYPES)) if isinstance(schema, dict) else TYPES
    names = given if isinstance(given, list | tuple) else [given]
    return {"number" if name == "integer" else str(name) for name in names}


def values_of(schema: Any) -> list[Any] | None:
    """The values that `const` or `enum` list."""
    if not isinstance(schema, dict):
        return None
    if "const" in schema:
        return [schema["const"]]
    return schema["enum"] if isinstance(schema.get("enum"), list) else None


# Opposites


def negated(schema: Any, resolve: Resolve, depth: int = 0) -> Any:
    """The schema of everything that another does not take, or None where that cannot be said."""
    if isinstance(schema, bool):
        return not schema
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return None
    ways: list[Any] = []
    for keyword, value in schema.items():
        if keyword not in ENFORCED and keyword not in REFUSED:
            continue
        found = _negated_keyword(keyword, value, schema, lambda part: negated(part, resolve, depth + 1), resolve)
        if found is None:
            return None
        ways += [way for way in found if way is not False]
    if True in ways:
        return True
    return {"anyOf": ways} if len(ways) > 1 else ways[0] if ways else False


_OTHER_SIDE = {
    "minLength": ("string", "maxLength", -1),
    "maxLength": ("string", "minLength", 1),
    "minItems": ("array", "maxItems", -1),
    "maxItems": ("array", "minItems", 1),
    "minProperties": ("object", "maxProperties", -1),
    "maxProperties": ("object", "minProperties", 1),
}
_OTHER_BOUND = {
    "minimum": "exclusiveMaximum",
    "maximum": "exclusiveMinimum",
    "exclusiveMinimum": "maximum",
    "exclusiveMaximum": "minimum",
}


def _negated_keyword(
    keyword: str, value: Any, schema: Json, negate: Callable[[Any], Any], resolve: Resolve
) -> list[Any] | None:
    """Schemas of which one takes whatever a keyword refuses, and none what it takes; None if that is not known."""
    if keyword in _OTHER_SIDE:
        kind, other, step = _OTHER_SIDE[keyword]
        return None if type(value) is not int else [{"type": kind, other: value + step}] if value + step >= 0 else []
    if keyword in _OTHER_BOUND:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_old = isinstance(schema.get("exclusiveMinimum"), bool) or isinstance(schema.get("exclusiveMaximum"), bool)
        return [{"type": "number", _OTHER_BOUND[keyword]: value}] if is_number and not is_old else None
    match keyword, value:
        case "type", _:
            return _other_types(value)
        case "const", _:
            return _other_values([value])
        case "enum", list():
            return _other_values(value)
        case "required", list():
            return [{"type": "object", "properties": {str(name): False}} for name in value]
        case "properties", dict():
            return _each((name, negate(part)) for name, part in value.items())
        case "allOf", list():
            return _known([negate(part) for part in value])
        case "anyOf", list():
            parts = _known([negate(part) for part in value])
            return None if parts is None else [_all_of(parts)]
        case "not", _:
            return [value]
        case "$ref", str():
            return _known([negate(resolve(value))])
        case (("additionalProperties" | "items" | "additionalItems"), (True | {})) if not value or value is True:
            return []
        case "uniqueItems", False:
            return []
    return None


def _known(parts: list[Any]) -> list[Any] | None:
    return None if None in parts else parts


def _each(negations: Iterator[tuple[str, Any]]) -> list[Any] | None:
    ways = []
    for name, negation in negations:
        if negation is None:
            return None
        if negation is not False:
            ways.append({"type": "object", "required": [name], "properties": {name: negation}})
    return ways


def _all_of(parts: list[Any]) -> Any:
    if False in parts:
        return False
    parts = [part for part in parts if part is not True]
    return {"allOf": parts} if len(parts) > 1 else parts[0] if parts else True


def _other_types(given: Any) -> list[Any] | None:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or ("integer" in names and "number" not in names):
        return None  # numbers that are no integers cannot be told
    others = [name for name in TYPES if name not in names]
    return [{"type": others}] if others else []


def _other_values(values: Sequence[Any]) -> list[Any] | None:
    """Everything but some values without parts."""
    kinds = {types_of(value) for value in values}
    if kinds & {"array", "object"}:
        return None
    ways: list[Any] = [{"type": [kind for kind in TYPES if kind not in kinds]}]
    texts, numbers = ([value for value in values if types_of(value) == kind] for kind in ("string", "number"))
    if texts:
        ways.append({"type": "string", "pattern": f"^(?:{other_texts(texts)})$"})
    if numbers:
        ways += _other_numbers(sorted(set(numbers)))
    if "boolean" in kinds and len({value for value in values if types_of(value) == "boolean"}) == 1:
        ways.append({"const": next(value is False for value in values if types_of(value) == "boolean")})
    return ways


def _other_numbers(numbers: list[float]) -> list[Json]:
    between = [{"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": high} for low, high in pairwise(numbers)]
    low = {"type": "number", "exclusiveMaximum": numbers[0]}
    return [low, *between, {"type": "number", "exclusiveMinimum": numbers[-1]}]


def other_texts(texts: Sequence[str]) -> str:
    """A regular expression, without look-around, of all texts but some."""
    nexts = sorted({text[0] for text in texts if text})
    ways = [] if "" in texts else [""]
    excluded = "".join(f"\\x{{{ord(char):x}}}" for char in nexts)
    ways.append(f"[^{excluded}](?s:.)*" if nexts else "(?s:.)+")
    for char in nexts:
        rest = [text[1:] for text in texts if text[:1] == char]
        ways.append(f"\\x{{{ord(char):x}}}(?:{other_texts(rest)})")
    return "|".join(ways)


# What has a value at all


def has_values(schema: Any, empty: frozenset[str]) -> bool:
    """False where it is certain that nothing finite matches. empty: the references to what nothing matches."""
    if not isinstance(schema, dict):
        return schema is not False

    def each(parts: Any) -> list[bool]:
        return [has_values(part, empty) for part in parts] if isinstance(parts, list) else []

    if schema.get("$ref") in empty:
        return False
    if not all(each(schema.get("allOf"))):
        return False
    if any(found and not any(found) for found in (each(schema.get("anyOf")), each(schema.get("oneOf")))):
        return False
    kinds = allowed_types(schema)
    if values_of(schema) is not None or kinds - {"object", "array"}:
        return True
    return ("object" in kinds and _object_has_values(schema, empty)) or (
        "array" in kinds and _array_has_values(schema, empty)
    )


def _object_has_values(schema: Json, empty: frozenset[str]) -> bool:
    required, least = schema.get("required", ()), schema.get("minProperties", 0)
    members = schema.get("properties", {})
    if not isinstance(members, dict) or not isinstance(required, list | tuple):
        return True
    names = {name for name in required if isinstance(name, str)}
    if not all(has_values(_member(schema, name), empty) for name in names):
        return False
    others = [schema.get("additionalProperties", True), *_listed(schema.get("patternProperties"))]
    if isinstance(least, int) and least > len(names) and not any(has_values(part, empty) for part in others):
        return least <= len(names) + sum(has_values(part, empty) for name, part in members.items() if name not in names)
    return True


def _member(schema: Json, name: str) -> Any:
    """What a property must match."""
    patterns = schema.get("patternProperties", {})
    parts = [part for pattern, part in patterns.items() if _names(pattern, name)] if isinstance(patterns, dict) else []
    if name in schema.get("properties", {}):
        parts.append(schema["properties"][name])
    return {"allOf": parts} if parts else schema.get("additionalProperties", True)


def _names(pattern: str, name: str) -> bool:
    """Whether a pattern of properties is certain to speak of a name."""
    return problem_of({"const": name, "pattern": pattern}) is None


def _listed(named: Any) -> list[Any]:
    return list(named.values()) if isinstance(named, dict) else []


def _array_has_values(schema: Json, empty: frozenset[str]) -> bool:
    least = schema.get("minItems", 0)
    if not isinstance(least, int) or least < 1:
        return True
    items = schema.get("items", True)
    first = schema.get("prefixItems") or (items if isinstance(items, list) else [])
    parts = [*first, *([items] if not isinstance(items, list) and len(first) < least else [])]
    return all(has_values(part, empty) for part in parts[:least])


# What is taken at most

# They only refuse, so that without them a schema takes more.
_ONLY_REFUSE = frozenset(
    (
        *REFUSED, "not", "if", "then", "else", "uniqueItems", "propertyNames", "minProperties", "maxProperties",
        "dependencies", "dependentRequired", "dependentSchemas",
    )
)  # fmt: skip


def widened(schema: Any) -> Any:
    """A schema without what llguidance cannot enforce: it takes all that the schema takes, and may take more."""
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in _ONLY_REFUSE}
    if kept.get("format") not in FORMATS:
        kept.pop("format", None)
    found = map_parts(kept, "#", lambda part, _: widened(part))
    if "oneOf" in found:
        options = {"anyOf": found.pop("oneOf")}
        found["allOf"] = [*found.get("allOf", ()), options]
    return found
