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

    Python finds what cannot be appended, or is no argument of a gen, while it evaluates the expression. Here the append
    does, unless that is too late: is_late says whether what stands before the node may fail to be appended, or sends a
    request, is_noticed whether what is evaluated behind it may fail or be noticed.
    """
    kind = low.resolver.primitive(node)
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=right) if _has_primitive(low, node):
            is_late_then = is_late or any(_may_fail(low, part) for part in _parts(low, left))
            is_noticed_then = is_noticed or any(_may_be_noticed(low, part) for part in _parts(low, right))
            first = _actions(low, left, is_late=is_late, is_noticed=is_noticed_then)
            second = _actions(low, right, is_late=is_late_then, is_noticed=is_noticed)
            if is_late or is_noticed_then:
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
            return [_model_op(low, kind, node, arguments, is_checked=is_late or is_noticed)]
        case ast.Call() if kind in _MEDIA and (arguments := _arguments(low, node)) is not None:
            values = {name: lower_expression(low, value) for name, value in arguments.items()}
            return [_Action(f"prompt.{kind}", node, [values[name] for name in _MEDIA[kind]], {})]
    return [_Action("prompt.append", node, [lower_expression(low, node)], {})]


def _check(low: Lowering, node: ast.expr, actions: list[_Action]) -> None:
    """Check now whether a value can be appended, if the node is one that may be none."""
    if not _is_text(node) and [action.node for action in actions if action.op == "prompt.append"] == [node]:
        with low.at(node):
            low.builder.op("prompt.part", actions[0].operands)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _parts(low: Lowering, node: ast.expr) -> list[ast.expr]:
    """What the chain of `+` consists of; a message is its call, and what is inside."""
    match node:
        case ast.BinOp(left=left, op=ast.Add(), right=right) if _has_primitive(low, node):
            return [*_parts(low, left), *_parts(low, right)]
        case ast.Call(args=[body], keywords=[]) if low.resolver.primitive(node) in _ROLES:
            return [node, *_parts(low, body)]
    return [node]


def _may_fail(low: Lowering, part: ast.expr) -> bool:
    """Whether it may fail to append a part, or sends a request."""
    return low.resolver.primitive(part) is not None or not _is_text(part)


def _may_be_noticed(low: Lowering, part: ast.expr) -> bool:
    """Whether it matters when a part is evaluated: it may fail or change something, or be no part."""
    kind = low.resolver.primitive(part)
    if kind is None:
        return not _is_text(part) or may_be_noticed(low, part, None)
    assert isinstance(part, ast.Call)
    if kind in _ROLES and not part.keywords:
        return False  # what is inside is a part of its own
    if kind in _OPS and not _is_sound(low, kind, part):
        return True
    return any(may_be_noticed(low, argument, None) for argument in (*part.args, *(k.value for k in part.keywords)))


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


def _model_op(low: Lowering, kind: str, node: ast.Call, arguments: dict[str, ast.expr], *, is_checked: bool) -> _Action:
    """is_checked: whether the arguments are checked here, and not when the op is reached."""
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
    attrs = {"name": name, "params": params or None}
    if is_checked and not _is_sound(low, kind, node):
        names = [*(_TEXTS[op] for _ in texts), *dynamic]
        with low.at(node):
            call = low.builder.value("lm.call", *texts, *operands, op=op, **attrs, dynamic=names or None, hint="call")
        operands.append(call)
        dynamic.append("call")
    return _Action(op, node, [*texts, *operands], {**attrs, "dynamic": dynamic or None})


def _is_sound(low: Lowering, kind: str, node: ast.Call) -> bool:
    """Whether it is known that the arguments of a request are such as the primitive takes."""
    arguments = _arguments(low, node)
    if arguments is None:
        return False
    known = {
        key: _plain(value) if key in _TEXTS.values() else _constant(low, key, value) for key, value in arguments.items()
    }
    if not all(is_known for _, is_known in known.values()):
        return False
    try:
        low.resolver.find(node.func)(**{key: constant for key, (constant, _) in known.items()})
    except Exception:  # what the primitive says, the run will say
        return False
    return True


def _constant(low: Lowering, key: str, node: ast.expr) -> tuple[Any, bool]:
    """The JSON-like constant that an argument is, and whether it is one."""
    found = low.resolver.find(node)
    if isinstance(constant := getattr(found, "__ramify_constant__", None), str):
        return constant, True
    if key == "dtype" and isinstance(node, ast.Name) and found in (int, float, bool, str):
        return node.id, True
    value, is_literal = _plain(node)
    if not is_literal:
        return None, False
    if key == "json_schema":
        return (value, True) if _is_json(value) else (None, False)
    value = list(value) if isinstance(value, tuple) else value
    plain = isinstance(value, None | bool | int | float | str) or (
        isinstance(value, list) and all(isinstance(v, bool | int | float | str) for v in value)
    )
    return (value, True) if plain and (key != "name" or isinstance(value, str | None)) else (None, False)


def _plain(node: ast.expr) -> tuple[Any, bool]:
    """The value of an expression that is a literal, and whether it is one."""
    try:
        return ast.literal_eval(node), True
    except (ValueError, TypeError, SyntaxError):
        return None, False


def _is_json(value: Any) -> bool:
    """Whether a constant is JSON, which an attribute can hold as it is."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return isinstance(value, None | bool | int | float | str)
