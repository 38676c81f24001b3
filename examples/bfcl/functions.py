"""BFCL's documents of functions as tools: their types in JSON schema's words, and the schema that calls are held to."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import ramify as rf
from ramify.ir.errors import UsageError

__all__ = ["FunctionTool", "json_schema", "mistakes", "shared_first", "tools_of", "typed"]

TYPES = {
    "string": "string",
    "integer": "integer",
    "float": "number",
    "boolean": "boolean",
    "array": "array",
    "tuple": "array",
    "dict": "object",
    "any": "string",
}
"""BFCL takes `any` as a text."""
_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


class FunctionTool(rf.SchemaTool):
    """A tool from a BFCL document: a model is shown all of it; calls are held to the types, and to declared names."""

    def __init__(self, function: Mapping[str, Any], *, underscores: bool = False) -> None:
        """underscores: name it with "_" for ".", for servers that take no dots. Raises UsageError for no document."""
        try:
            name, parameters = function["name"], function["parameters"]
            shown = json_schema(parameters)
            self._enforced = json_schema(parameters, is_enforced=True)
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"this is no document of a function as BFCL has them ({error!r}): {function!r:.80}",
                help='it has "name", "description" and "parameters": {"type": "dict", "properties": {...}, ...}',
            ) from None
        super().__init__(name.replace(".", "_") if underscores else name, function.get("description", ""), shown)

    @property
    def arguments_schema(self) -> dict[str, Any]:
        """The schema that calls are held to."""
        return self._enforced


def tools_of(
    functions: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, underscores: bool = False
) -> list[FunctionTool]:
    """The tools of one document or of several."""
    several = [functions] if isinstance(functions, Mapping) else functions
    return [FunctionTool(function, underscores=underscores) for function in several]


def shared_first(several: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[Mapping[str, Any]]]:
    """Lists of functions, in each those first that most lists have, so that prompts are equal for as long as they can.

    Functions that no other list has stay in their order.
    """
    counts = Counter(json.dumps(function) for functions in several for function in functions)

    def place(function: Mapping[str, Any]) -> tuple[int, str]:
        count = counts[json.dumps(function)]
        return -count, function["name"] if count > 1 else ""

    return [sorted(each, key=place) for each in several]


def json_schema(described: Mapping[str, Any], *, is_enforced: bool = False) -> dict[str, Any]:
    """A documented type as JSON schema. is_enforced: only what a call is held to, and no names but the declared ones.

    Raises KeyError for types that BFCL's Python questions do not have.
    """
    schema: dict[str, Any] = {"type": TYPES[described["type"]]}
    for key, value in described.items():
        if key == "properties":
            schema[key] = {name: json_schema(part, is_enforced=is_enforced) for name, part in value.items()}
        elif key == "items" and schema["type"] == "array":
            schema[key] = json_schema(value, is_enforced=is_enforced)
        elif key == "required" and "properties" in described:
            schema[key] = [name for name in value if name in described["properties"]]
        elif key == "enum" or (key in ("description", "default") and not is_enforced):
            schema[key] = value
    if is_enforced and "properties" in schema:
        schema["additionalProperties"] = False
    return schema


def typed(value: Any, described: Mapping[str, Any]) -> Any:
    """A value from JSON, where 3 may be a float: with floats wherever they are documented."""
    kind = described["type"]
    if kind == "float" and type(value) is int:
        return float(value)
    if kind in ("array", "tuple") and isinstance(value, list) and "items" in described:
        return [typed(item, described["items"]) for item in value]
    if kind == "dict" and isinstance(value, dict):
        inner = described.get("properties", {})
        return {name: typed(item, inner[name]) if name in inner else item for name, item in value.items()}
    return value


def mistakes(value: Any, schema: Mapping[str, Any], place: str = "") -> list[str]:
    """What is wrong with a value by an enforced schema: types, values that no enum has, missing and unknown names."""
    kind = schema["type"]
    if not _is_a(kind, value):
        return [f"{place or 'the value'} is to be {kind}, and is {value!r:.60}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{place} is none of its values: {value!r:.60}"]
    if kind == "array" and "items" in schema:
        return [each for i, item in enumerate(value) for each in mistakes(item, schema["items"], f"{place}[{i}]")]
    if kind != "object" or "properties" not in schema:
        return []
    known = schema["properties"]
    found = [f"{place}{name} is missing" for name in schema.get("required", []) if name not in value]
    found += [f"{place}{name} is unknown" for name in value if name not in known]
    return found + [
        each for name in value if name in known for each in mistakes(value[name], known[name], f"{place}{name}")
    ]


def _is_a(kind: str, value: Any) -> bool:
    """Whether a value from JSON is of a schema's type; True is no integer."""
    return isinstance(value, _PYTHON[kind]) and isinstance(value, bool) == (kind == "boolean")
