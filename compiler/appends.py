"""`state += expression`: gens, selects and role marks become ops; every other part is evaluated and appended.

All parts are evaluated before the first is appended, as Python does: `+` builds the whole expression first.
"""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from typing import Any

from ..ir.core import Value
from .expressions import lower_expression, may_be_noticed
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
    actions = _actions(low, node)
    prompt = low.builder.value("cell.load", cell)
    for action in actions:
        with low.at(action.node):
            prompt = low.builder.value(action.op, prompt, *action.operands, **action.attrs)
    if low.num_groups:
        prompt = low.builder.value("prompt.item", prompt)
    low.builder.op("cell.store", [cell, prompt])


def _actions(low: Lowering, node: ast.expr, *, is_late: bool = False, is_noticed: bool = False) -> list[_Action]:
    """Evaluate the parts of an expression; what is to be done with them then.

    In Python `+` and roles refuse at once a value that cannot be appended. Here the append does, unless that is too
    late: is_late says whether what stands before the node may fail to be appended, or sends a request, is_noticed
    whether what is behind it may be noticed.
    """
    kind = low.resolver.primitive(node)
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=right) if _has_primitive(low, node):
            is_late_then = is_late or _has_primitive(low, left)
            first = _actions(low, left, is_late=is_late, is_noticed=is_noticed or _may_be_noticed(low, right))
            second = _actions(low, right, is_late=is_late_then, is_noticed=is_noticed)
            if is_late or is_noticed:
                _check(low, left, first)
            if is_late_then or is_noticed:
                _check(low, right, second)
            return [*first, *second]
        case ast.Call(args=[body], keywords=[]) if kind in _ROLES and not isinstance(body, ast.Starred):
            inside = _actions(low, body, is_late=True, is_noticed=is_noticed)
            _check(low, body, inside)
            return [_role(node, kind, "begin"), *inside, _role(node, kind, "end")]
        case ast.Call(args=[], keywords=[]) if kind and kind.removesuffix("_begin").removesuffix("_end") != kind:
            role, _, mark = kind.rpartition("_")
            return [_role(node, role, mark)]
        case ast.Call() if kind in _OPS and (arguments := _arguments(low, node)) is not None:
            return [_model_op(low, kind, node, arguments)]
        case ast.Call() if kind in _MEDIA and (arguments := _arguments(low, node)) is not None:
            values = {name: lower_expression(low, value) for name, value in arguments.items()}
            return [_Action(f"prompt.{kind}", node, [values[name] for name in _MEDIA[kind]], {})]
    return [_Action("prompt.append", node, [lower_expression(low, node)], {})]


def _check(low: Lowering, node: ast.expr, actions: list[_Action]) -> None:
    """Check now whether a value can be appended, if the node is one that may be none."""
    is_text = isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    if not is_text and [action.node for action in actions if action.op == "prompt.append"] == [node]:
        with low.at(node):
            low.builder.op("prompt.part", actions[0].operands)


def _parts(low: Lowering, node: ast.expr) -> list[ast.expr]:
    """What the chain of `+` and the roles in it consist of."""
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=right) if _has_primitive(low, node):
            return [*_parts(low, left), *_parts(low, right)]
        case ast.Call(args=[body], keywords=[]) if low.resolver.primitive(node) in _ROLES:
            return _parts(low, body)
    return [node]


def _may_be_noticed(low: Lowering, node: ast.expr) -> bool:
    """Whether it matters when the expression is evaluated: it may fail, or change something."""
    return any(_part_may_be_noticed(low, part) for part in _parts(low, node))


def _part_may_be_noticed(low: Lowering, node: ast.expr) -> bool:
    if low.resolver.primitive(node) is None:
        return may_be_noticed(low, node, None)
    assert isinstance(node, ast.Call)
    arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
    return any(may_be_noticed(low, argument, None) for argument in arguments)


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
