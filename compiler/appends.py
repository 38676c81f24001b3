"""`state += expression`: gens, selects and role marks become ops; every other part is evaluated and appended.

All parts are evaluated before the first is appended, as Python does: `+` builds the whole expression first.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..ir.core import Value
from .expressions import lower_expression
from .lowering import Lowering

_DTYPES = {"gen_int": "int", "gen_string": "str"}
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class _Action:
    """One op to apply to the prompt, after its operands have been evaluated."""

    op: str
    node: ast.expr
    operands: list[Value]
    attrs: dict[str, Any]


def lower_append(low: Lowering, cell: Value, node: ast.expr) -> None:
    """Append an expression to the prompt that a cell holds."""
    actions = list(_actions(low, node))
    prompt = low.builder.value("cell.load", cell)
    for action in actions:
        with low.at(action.node):
            prompt = low.builder.value(action.op, prompt, *action.operands, **action.attrs)
    low.builder.op("cell.store", [cell, prompt])


def _actions(low: Lowering, node: ast.expr) -> Iterator[_Action]:
    kind = low.resolver.primitive(node)
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=right) if _has_primitive(low, node):
            yield from _actions(low, left)
            yield from _actions(low, right)
        case ast.Call(args=[body], keywords=[]) if kind in _ROLES and not isinstance(body, ast.Starred):
            yield _role(node, kind, "begin")
            yield from _actions(low, body)
            yield _role(node, kind, "end")
        case ast.Call(args=[], keywords=[]) if kind and kind.removesuffix("_begin").removesuffix("_end") != kind:
            role, _, mark = kind.rpartition("_")
            yield _role(node, role, mark)
        case ast.Call() if kind in ("gen", "gen_int", "gen_string", "select") and _plain_call(node, kind):
            yield _model_op(low, node, kind)
        case _:
            yield _Action("prompt.append", node, [lower_expression(low, node)], {})


def _has_primitive(low: Lowering, node: ast.expr) -> bool:
    """Whether a primitive is called in the chain of `+` itself, or in what a role wraps."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _has_primitive(low, node.left) or _has_primitive(low, node.right)
    return low.resolver.primitive(node) is not None


def _role(node: ast.expr, role: str | None, mark: str) -> _Action:
    return _Action("prompt.role", node, [], {"role": role, "mark": mark})


def _plain_call(node: ast.Call, kind: str) -> bool:
    """Whether the call's arguments can be read off: a name, then keywords (a select may have its choices second)."""
    limit = 2 if kind == "select" else 1
    return (
        len(node.args) <= limit
        and not any(isinstance(a, ast.Starred) for a in node.args)
        and all(k.arg is not None for k in node.keywords)
    )


def _model_op(low: Lowering, node: ast.Call, kind: str) -> _Action:
    given = dict(zip(("name", "choices"), node.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None}
    params: dict[str, Any] = {"dtype": _DTYPES[kind]} if kind in _DTYPES else {}
    operands: list[Value] = []
    dynamic: list[str] = []
    choices: list[Value] = []
    for key, value in given.items():
        constant, known = _constant(low, key, value)
        if key == "choices":
            choices.append(lower_expression(low, value))
        elif known:
            params[key] = constant
        else:
            dynamic.append(key)
            operands.append(lower_expression(low, value))
    name = params.pop("name", None)
    attrs = {"name": name, "params": params or None, "dynamic": dynamic or None}
    if kind == "select" and not choices:  # the primitive itself says what is missing
        return _Action("prompt.append", node, [lower_expression(low, node)], {})
    return _Action("lm.select" if choices else "lm.gen", node, [*choices, *operands], attrs)


def _constant(low: Lowering, key: str, node: ast.expr) -> tuple[Any, bool]:
    """The JSON-like constant that an argument is, and whether it is one."""
    if key == "dtype" and isinstance(node, ast.Name) and low.resolver.find(node) in (int, float, bool, str):
        return node.id, True
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return None, False
    value = list(value) if isinstance(value, tuple) else value
    plain = isinstance(value, None | bool | int | float | str) or (
        isinstance(value, list) and all(isinstance(v, bool | int | float | str) for v in value)
    )
    return (value, True) if plain and (key != "name" or isinstance(value, str | None)) else (None, False)
