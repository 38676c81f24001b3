"""`with` around a state -> ops: messages, variable scopes and groups have a begin and an end, a state itself has none.

The end is lowered where the body ends and before whatever leaves it. An exception leaves it out, as it does in the
generators behind these methods (lang/state.py).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from ..ir.core import Value
from .expressions import bind_target, lower_expression, state_cell
from .leaving import Ending
from .lowering import Lowering

_End = Callable[[], None]


def can_lower(low: Lowering, node: ast.With) -> bool:
    """Whether every context manager of the statement is a state, or a scope that a state makes."""
    return all(_is_scope(low, item.context_expr) for item in node.items)


def _is_scope(low: Lowering, node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=base, attr=method), args=args, keywords=[]) if method in _SCOPES:
            plain = len(args) == _SCOPES[method][1] and not any(isinstance(arg, ast.Starred) for arg in args)
            return plain and low.scope.kind(base) == "state"
    return low.scope.kind(node) == "state"


def lower_with(low: Lowering, items: Sequence[ast.withitem], body: Callable[[], None]) -> None:
    """Lower a body inside the scopes of `items`, for which `can_lower` holds."""
    if not items:
        return body()
    first, rest = items[0], items[1:]
    with low.at(first.context_expr):
        cell, end = _enter(low, first.context_expr)
        if first.optional_vars is not None:
            bind_target(low, first.optional_vars, cell)
    low.around.append(Ending(end))
    low.num_groups += _is_group(first.context_expr)
    lower_with(low, rest, body)
    low.num_groups -= _is_group(first.context_expr)
    low.around.pop()
    if not low.builder.terminated:
        end()
    return None


def _is_group(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "unordered"


def _enter(low: Lowering, node: ast.expr) -> tuple[Value, _End]:
    """Begin a scope: the cell of its state, and what lowers its end."""
    if low.scope.kind(node) == "state":
        return state_cell(low, node), lambda: None
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    cell = state_cell(low, node.func.value)
    end = _SCOPES[node.func.attr][0](low, cell, node)

    def end_there() -> None:
        with low.at(node):
            end()

    return cell, end_there


def _role(low: Lowering, cell: Value, node: ast.Call) -> _End:
    """A message of the role that the method is named after, or that its argument says."""
    name = node.args[0] if node.args else ast.Constant(node.func.attr)  # type: ignore[attr-defined]
    operands, attrs = _named(low, "role", name)
    _step(low, cell, "prompt.role", operands, {**attrs, "mark": "begin"})
    return lambda: _step(low, cell, "prompt.role", operands, {**attrs, "mark": "end"})


def _var_scope(low: Lowering, cell: Value, node: ast.Call) -> _End:
    operands, attrs = _named(low, "name", node.args[0])
    start = low.builder.value("cell.load", cell)

    def end() -> None:
        text = low.builder.value("prompt.since", low.builder.value("cell.load", cell), start)
        _step(low, cell, "prompt.bind", [text, *operands], attrs)

    return end


def _unordered(low: Lowering, cell: Value, node: ast.Call) -> _End:
    start = low.builder.value("cell.load", cell)

    def end() -> None:
        _step(low, cell, "prompt.group", [start], {})

    return end


def _named(low: Lowering, attr: str, node: ast.expr) -> tuple[list[Value], dict[str, Any]]:
    """An argument that is a text: an attribute when it is constant, else an operand."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [], {attr: node.value}
    return [lower_expression(low, node)], {"dynamic": [attr]}


def _step(low: Lowering, cell: Value, op: str, operands: Sequence[Value], attrs: dict[str, Any]) -> None:
    """Replace the prompt of a cell by what an op makes of it."""
    prompt = low.builder.value("cell.load", cell)
    low.builder.op("cell.store", [cell, low.builder.value(op, prompt, *operands, **attrs)])


# Methods of a state that make a scope, with the number of arguments they must have.
_SCOPES: dict[str, tuple[Callable[[Lowering, Value, ast.Call], _End], int]] = {
    "system": (_role, 0),
    "user": (_role, 0),
    "assistant": (_role, 0),
    "role": (_role, 1),
    "var_scope": (_var_scope, 1),
    "unordered": (_unordered, 0),
}
