"""Finds calls in host code without effects that cannot block: of primitives, and of functions that only call such.

`text("note", 24)` with `def text(name, n): return rf.gen(name, max_tokens=n)` is as good as the primitive itself. What
a name means is looked up when the module is linked, and each run checks that it still means that.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

# Primitives that only build expressions.
_BUILDERS = {
    "gen", "gen_int", "gen_string", "select", "score", "system", "user", "assistant", "system_begin", "system_end",
    "user_begin", "user_end", "assistant_begin", "assistant_end",
}  # fmt: skip
_SCALARS = (str, int, float, bool, type(None), bytes)
_MAX_DEPTH = 8


@dataclass(slots=True)
class Callees:
    """What the calls of some host code mean: for each name its globals, its attribute (or None) and the object."""

    found: list[tuple[Mapping[str, Any], str, str | None, Any]] = field(default_factory=list)

    def are_same(self) -> bool:
        """Whether all of it still means what it meant."""
        return all(_resolved(space, name, attribute) is meant for space, name, attribute, meant in self.found)

    def take(
        self,
        node: ast.expr,
        space: Mapping[str, Any],
        own: Collection[str],
        is_quick: Callable[..., bool],
        depth: int = 0,
    ) -> bool:
        """Whether a called expression is a harmless function from outside; remembers what it means.

        space: the globals. own: names that are bound inside. is_quick: see hostwork.is_quick_expression.
        """
        match node:
            case ast.Name(id=name):
                attribute = None
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                pass
            case _:
                return False
        if name in own:
            return False
        meant = space.get(name)
        if attribute is not None:
            meant = getattr(meant, attribute, None) if isinstance(meant, ModuleType) else None
        if not (_is_builder(meant) or self._is_harmless(meant, is_quick, depth)):
            return False
        self.found.append((space, name, attribute, meant))
        return True

    def _is_harmless(self, function: Any, is_quick: Callable[..., bool], depth: int) -> bool:
        """Whether a function of the user's only returns an expression of its parameters, which is quick itself."""
        if type(function) is not FunctionType or function.__closure__ or depth > _MAX_DEPTH:
            return False
        if inspect.iscoroutinefunction(function) or not _are_scalars(function):
            return False
        body = _returned(function)
        if body is None:
            return False
        code = function.__code__
        parameters = set(code.co_varnames)
        calls = [node.func for node in ast.walk(body) if isinstance(node, ast.Call)]
        space = function.__globals__
        called = {id(call) for call in calls if self.take(call, space, parameters, is_quick, depth + 1)}
        return is_quick(body, parameters, space, called)


def _resolved(space: Mapping[str, Any], name: str, attribute: str | None) -> Any:
    found = space.get(name)
    if attribute is None:
        return found
    return found.__dict__.get(attribute) if isinstance(found, ModuleType) else None


def _is_builder(meant: Any) -> bool:
    return type(meant) is FunctionType and getattr(meant, "__ramify__", None) in _BUILDERS


def _are_scalars(function: FunctionType) -> bool:
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return all(type(value) in _SCALARS for value in defaults)


def _returned(function: FunctionType) -> ast.expr | None:
    """The expression that a function returns, if that is all it does."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function.__code__)))
    except (OSError, SyntaxError, TypeError):
        return None
    match tree.body:
        case [ast.FunctionDef(body=[ast.Return(value=ast.expr() as value)])]:
            return value
        case [
            ast.FunctionDef(
                body=[ast.Expr(value=ast.Constant(value=str())), ast.Return(value=ast.expr() as value)],
            )
        ]:
            return value
    return None
