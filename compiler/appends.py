"""`state += expression`: gens, selects and role marks become ops; every other part is evaluated and appended.

All parts are evaluated before the first is appended, as Python does: `+` builds the whole expression first.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..ir.core import Value
from .expressions import lower_expression
from .lowering import Lowering

_DTYPES = {"gen_int": "int", "gen_string": "str"}
_ROLES = ("system", "user", "assistant")
_OPS = {"gen": "lm.gen", "gen_int": "lm.gen", "gen_string": "lm.gen", "select": "lm.select", "score": "lm.score"}
# The operands of each kind of media, by the primitive's parameters.
_MEDIA = {"image": ("source",), "video": ("path", "num_frames")}
# The argument that is an operand of its own.
_TEXTS = {"lm.select": "choices", "lm.score": "texts"}


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
    _check_parts(low, actions)
    prompt = low.builder.value("cell.load", cell)
    for action in actions:
        with low.at(action.node):
            prompt = low.builder.value(action.op, prompt, *action.operands, **action.attrs)
    if low.num_groups:
        prompt = low.builder.value("prompt.item", prompt)
    low.builder.op("cell.store", [cell, prompt])


def _check_parts(low: Lowering, actions: list[_Action]) -> None:
    """Check the values behind a request before that is sent: in Python the whole expression has been built by then."""
    first = next((index for index, action in enumerate(actions) if action.op.startswith("lm.")), len(actions))
    for action in actions[first:]:
        if action.op == "prompt.append" and not _is_text(action.node):
            with low.at(action.node):
                low.builder.op("prompt.part", action.operands)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


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
        case ast.Call() if kind in _OPS and (arguments := _arguments(low, node)) is not None:
            yield _model_op(low, kind, node, arguments)
        case ast.Call() if kind in _MEDIA and (arguments := _arguments(low, node)) is not None:
            values = {name: lower_expression(low, value) for name, value in arguments.items()}
            yield _Action(f"prompt.{kind}", node, [values[name] for name in _MEDIA[kind]], {})
        case _:
            yield _Action("prompt.append", node, [lower_expression(low, node)], {})


def _has_primitive(low: Lowering, node: ast.expr) -> bool:
    """Whether a primitive is called in the chain of `+` itself, or in what a role wraps."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _has_primitive(low, node.left) or _has_primitive(low, node.right)
    return low.resolver.primitive(node) is not None


def _role(node: ast.expr, role: str | None, mark: str) -> _Action:
    return _Action("prompt.role", node, [], {"role": role, "mark": mark})


def _arguments(low: Lowering, node: ast.Call) -> dict[str, ast.expr] | None:
    """A primitive's arguments by the names of its parameters; None when they cannot be read off, or do not fit."""
    keywords = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None}
    if len(keywords) < len(node.keywords) or any(isinstance(argument, ast.Starred) for argument in node.args):
        return None
    signature = inspect.signature(low.resolver.find(node.func))
    try:
        bound = signature.bind(*node.args, **keywords).arguments
    except TypeError:  # the call itself will say what is wrong
        return None
    for name in [p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]:
        bound |= bound.pop(name, {})
    names = {value: name for name, value in bound.items()}
    return {names[value]: value for value in (*node.args, *keywords.values())}  # in the order of evaluation


def _model_op(low: Lowering, kind: str, node: ast.Call, arguments: dict[str, ast.expr]) -> _Action:
    op = "lm.select" if kind == "gen" and isinstance(arguments.get("choices"), ast.List | ast.Tuple) else _OPS[kind]
    if op in _TEXTS and _TEXTS[op] not in arguments:  # the primitive itself says what is missing
        return _Action("prompt.append", node, [lower_expression(low, node)], {})
    params: dict[str, Any] = {"dtype": _DTYPES[kind]} if kind in _DTYPES else {}
    operands: list[Value] = []
    dynamic: list[str] = []
    texts: list[Value] = []
    for key, value in arguments.items():
        constant, known = _constant(low, key, value)
        if key == _TEXTS.get(op):
            texts.append(lower_expression(low, value))
        elif known:
            params[key] = constant
        else:
            dynamic.append(key)
            operands.append(lower_expression(low, value))
    name = params.pop("name", None)
    attrs = {"name": name, "params": params or None, "dynamic": dynamic or None}
    return _Action(op, node, [*texts, *operands], attrs)


def _constant(low: Lowering, key: str, node: ast.expr) -> tuple[Any, bool]:
    """The JSON-like constant that an argument is, and whether it is one."""
    found = low.resolver.find(node)
    if isinstance(constant := getattr(found, "__ramify_constant__", None), str):
        return constant, True
    if key == "dtype" and isinstance(node, ast.Name) and found in (int, float, bool, str):
        return node.id, True
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return None, False
    if key == "json_schema":
        return (value, True) if _is_json(value) else (None, False)
    value = list(value) if isinstance(value, tuple) else value
    plain = isinstance(value, None | bool | int | float | str) or (
        isinstance(value, list) and all(isinstance(v, bool | int | float | str) for v in value)
    )
    return (value, True) if plain and (key != "name" or isinstance(value, str | None)) else (None, False)


def _is_json(value: Any) -> bool:
    """Whether a constant is JSON, which an attribute can hold as it is."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return isinstance(value, None | bool | int | float | str)
