"""What can be told of host code without running it: its value for known inputs, how its text begins, if it takes long.

Only comparisons, boolean operators, `match` with constant patterns and text put together are understood.
"""

from __future__ import annotations

import ast
import builtins
import operator
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from ..ir.core import Op
from ..ir.syntax import walk

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda value, group: value in group,
    ast.NotIn: lambda value, group: value not in group,
}
_QUICK = {name for name in dir(builtins) if name not in ("exec", "eval", "input", "open", "print", "__import__")}
_METHODS = {name for kind in (str, bytes, list, tuple, dict, set, int, float) for name in dir(kind) if name[0] != "_"}
# Raised by what is no value that can be told.
UNKNOWN = (LookupError, TypeError, RecursionError)


def value_of(op: Op, known: Mapping[str, Any]) -> Any:
    """The value of a host op for known inputs, by name. Raises one of UNKNOWN when it cannot be told."""
    body = _parsed(op)
    if op.name == "py.expr":
        (statement,) = body
        assert isinstance(statement, ast.Expr)
        return _value(statement.value, known)
    return _matched(body, known)


def leading_text(op: Op, known: Mapping[str, Any]) -> tuple[list[str | ast.Name], bool]:
    """How the text of an expression begins: pieces that are text or inputs, and whether that is all of it."""
    (statement,) = _parsed(op)
    assert isinstance(statement, ast.Expr)
    try:
        return _leading(statement.value, known)
    except RecursionError:
        return [], False


def may_take_long(op: Op) -> bool:
    """Whether host code calls anything but builtins and methods of builtin types."""
    nodes = [node for statement in _parsed(op) for node in walk(statement)]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    return any(isinstance(node, ast.Await) for node in nodes) or not all(map(_is_quick, calls))


def _parsed(op: Op) -> list[ast.stmt]:
    try:
        return _parse(op.attrs["code"], op.name == "py.expr")
    except (RecursionError, MemoryError):  # it is nested too deep
        return _parse("unknown()", True)


@lru_cache(maxsize=512)
def _parse(code: str, is_expression: bool) -> list[ast.stmt]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what CPython has warned when the user's file was loaded
        if is_expression:
            return ast.parse(f"(\n{code}\n)").body
        is_indented = code.lstrip("\n")[:1].isspace()
        return ast.parse(f"if True:\n{code}" if is_indented else code).body


def _is_quick(call: ast.Call) -> bool:
    match call.func:
        case ast.Name(id=name):
            return name in _QUICK
        case ast.Attribute(attr=method):
            return method in _METHODS
    return False


def _value(node: ast.expr, known: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return known[name]
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            return [_value(item, known) for item in items]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, known)
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_value(value, known) for value in values)
        case ast.BoolOp(op=ast.Or(), values=values):
            return any(_value(value, known) for value in values)
        case ast.Compare(left=left, ops=[comparison], comparators=[right]):
            return _COMPARISONS[type(comparison)](_value(left, known), _value(right, known))
    raise TypeError(node)


def _matched(body: list[ast.stmt], known: Mapping[str, Any]) -> bool:
    """What a block tells that the front end makes of one case: whether the subject matches its pattern."""
    match body:
        case [ast.Assign(value=ast.Constant(value=False)), ast.Match(subject=subject, cases=[case])]:
            if case.guard is None:
                return _matches(case.pattern, _value(subject, known))
    raise TypeError(body)


def _matches(pattern: ast.pattern, value: Any) -> bool:
    match pattern:
        case ast.MatchValue(value=ast.Constant(value=wanted)):
            return bool(wanted == value)
        case ast.MatchOr(patterns=patterns):
            return any(_matches(each, value) for each in patterns)
        case ast.MatchAs(pattern=None):
            return True
    raise TypeError(pattern)


def _leading(node: ast.expr, known: Mapping[str, Any]) -> tuple[list[str | ast.Name], bool]:
    match node:
        case ast.Constant(value=str() as text):
            return [text], True
        case ast.Name(id=name):
            value = known.get(name)
            return [value if isinstance(value, str) else node], True
        case ast.FormattedValue(value=ast.Name() as inner, conversion=-1, format_spec=None):
            return _leading(inner, known)
        case ast.JoinedStr(values=values):
            return _joined(values, known)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _joined([left, right], known)
    return [], False


def _joined(nodes: list[ast.expr], known: Mapping[str, Any]) -> tuple[list[str | ast.Name], bool]:
    pieces: list[str | ast.Name] = []
    for node in nodes:
        more, is_all = _leading(node, known)
        pieces += more
        if not is_all:
            return pieces, False
    return pieces, True
