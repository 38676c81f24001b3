"""Where in a JSON schema the trouble is that llguidance has with the whole of it."""

from __future__ import annotations

from typing import Any

from ..ir.errors import RequestError
from .grammar import is_unsatisfiable, problem_of
from .schema_keywords import ENFORCED
from .schema_lowering import lowered, refused
from .schema_parts import Json, at, parts_of


def located(root: Any, problem: str) -> RequestError:
    """The error for a schema: the innermost part that has the problem by itself, and the keywords it comes from."""
    part, path = root, "#"
    while inner := _inner(root, part, path, problem):
        path, part, problem = inner
    blamed = _blamed(root, part, problem)
    place = at(path, blamed[0]) if len(blamed) == 1 else path
    names = f" ({', '.join(blamed)})" if len(blamed) > 1 else ""
    return refused(f"{place}{names}", _worded(problem))


def _inner(root: Any, schema: Any, path: str, problem: str) -> tuple[str, Any, str] | None:
    """The first part of a schema that has the problem, or as far as nothing matches the cause of it."""
    for place, part in parts_of(schema, path):
        found = _problem(root, part)
        if found is None:
            continue
        if found == problem or (is_unsatisfiable(found) and is_unsatisfiable(problem) and _is_needed(schema, place)):
            return place, part, found
    return None


def _is_needed(schema: Json, place: str) -> bool:
    """Whether nothing matches a schema of an object or array if nothing matches this part of it."""
    keyword, _, name = place.rpartition("/")
    if keyword.endswith("/properties"):
        return name in schema.get("required", ())
    return "/$defs/" not in place and "/definitions/" not in place and not keyword.endswith("/patternProperties")


def _blamed(root: Any, schema: Any, problem: str) -> list[str]:
    """The keywords without each of which the problem is gone."""
    if not isinstance(schema, dict):
        return []
    found = [
        keyword
        for keyword in schema
        if keyword in ENFORCED
        and _problem(root, {key: value for key, value in schema.items() if key != keyword}) != problem
    ]
    return [keyword for keyword in found if keyword != "type"] or found


def _problem(root: Any, schema: Any) -> str | None:
    """What is wrong with a part by itself. Its references find what the root defines."""
    if isinstance(schema, dict) and isinstance(root, dict):
        schema = {key: value for key, value in root.items() if key not in ENFORCED} | schema
    try:
        return problem_of(lowered(schema))
    except RequestError as error:
        return error.message


def _worded(problem: str) -> str:
    return f"nothing matches: {problem.partition(': ')[2]}" if is_unsatisfiable(problem) else problem
