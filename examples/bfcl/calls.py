"""A call of a function, and calls read from a model's text: JSON, or Python as BFCL's prompts ask for it."""

import ast
import json
from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["Call", "call_of_source", "read_calls"]


class Call(msgspec.Struct, frozen=True):
    """A call by name; arguments are as JSON (or the Python literals) say them, by the parameters' names.

    positional: arguments without a name, which only calls in Python have.
    """

    name: str
    arguments: dict[str, Any]
    positional: list[Any] = []


def read_calls(text: str) -> list[Call]:
    """The calls in a text: a JSON list of objects with name and arguments, or one of them, or `[f(a=1), g(b=2)]`.

    Raises ValueError that says what is wrong, for text that is none of these.
    """
    body = text.strip()
    if body.startswith("```"):
        body = body.partition("\n")[2].rpartition("```")[0].strip()
    try:
        found = json.loads(body)
    except ValueError as error:
        return _read_python(body, error)
    return [_read_object(each) for each in (found if isinstance(found, list) else [found])]


def _read_object(found: Any) -> Call:
    """A call from decoded JSON. Raises ValueError."""
    if not isinstance(found, Mapping) or not isinstance(name := found.get("name"), str):
        raise ValueError(f"a call is an object with name and arguments, not {found!r:.80}")
    arguments = found.get("arguments", found.get("parameters"))
    if not isinstance(arguments, dict):
        raise ValueError(f"the arguments of {name} are an object, not {arguments!r:.80}")
    return Call(name, arguments)


def _read_python(body: str, reason: ValueError) -> list[Call]:
    """Calls written as Python. Raises ValueError: what the text is as JSON, where it is no Python either."""
    try:
        tree = ast.parse(body, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"neither JSON ({reason}) nor Python") from None
    parts = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
    return [_call_of(part) for part in parts]


def call_of_source(source: str) -> Call:
    """One call written as Python. Raises ValueError."""
    (call,) = _read_python(source, ValueError("a call in Python is wanted"))
    return call


def _call_of(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call):
        raise ValueError(f"not a call: {ast.unparse(node)[:80]}")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError(f"{ast.unparse(node.func)} is called with **, so its arguments are not known")
        arguments[keyword.arg] = _value(keyword.value)
    return Call(ast.unparse(node.func), arguments, [_value(each) for each in node.args])


def _value(node: ast.expr) -> Any:
    """A literal's value; of any other expression its source, as BFCL takes variables."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
