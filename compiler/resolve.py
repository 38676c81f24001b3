"""What a name in the user's code refers to when the function is compiled: primitives, programs, helper functions.

Only names that are not local variables are looked up (closure, globals, builtins, attributes of modules). Each lookup
is recorded as a `Binding`, so that a compiled program can tell later that a global was rebound and compile again.
"""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Collection
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

from .scope import Scope

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Binding:
    """A name that was looked up in `function`'s surroundings, and what it meant then."""

    function: FunctionType
    path: tuple[str, ...]
    found: Any

    def holds(self) -> bool:
        """Whether the name still means the same object."""
        return _look_up(self.function, self.path) is self.found


def shadowed(function: FunctionType, names: Collection[str], bindings: list[Binding]) -> set[str]:
    """Those of some builtin names that mean something else in a function. What they mean is added to `bindings`."""
    meanings = {name: _look_up_name(function, name) for name in names}
    bindings.extend(Binding(function, (name,), found) for name, found in meanings.items())
    return {name for name, found in meanings.items() if found is not getattr(builtins, name)}


@dataclass(slots=True)
class Resolver:
    """Looks names up for one function and remembers what it found."""

    function: FunctionType
    scope: Scope
    bindings: list[Binding] = field(default_factory=list)

    def find(self, node: ast.expr) -> Any:
        """The object that a name or dotted name refers to; None when it is local, dynamic or unknown."""
        path = _path(node)
        if path is None or path[0] in self.scope.locals:
            return None
        found = _look_up(self.function, path)
        if found is _MISSING:
            return None
        self.bindings.append(Binding(self.function, path, found))
        return found

    def is_defined(self, name: str) -> bool:
        """Whether a name from outside means something now."""
        return _look_up_name(self.function, name) is not _MISSING

    def primitive(self, node: ast.expr) -> str | None:
        """The kind of primitive that is called by `node` ("gen", "user", ...), or None."""
        if not isinstance(node, ast.Call):
            return None
        mark = getattr(self.find(node.func), "__ramify__", None)
        return mark if isinstance(mark, str) and mark != "program" else None

    def helper(self, node: ast.Call) -> FunctionType | None:
        """The plain Python function that a call runs: that of a program, or a helper with source of its own."""
        found = self.find(node.func)
        if getattr(found, "__ramify__", None) == "program":
            found = found.fn
        if not isinstance(found, FunctionType) or inspect.iscoroutinefunction(found):
            return None
        return None if inspect.isgeneratorfunction(found) or hasattr(found, "__wrapped__") else found


def _path(node: ast.expr) -> tuple[str, ...] | None:
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute) and (base := _path(node.value)) is not None:
        return (*base, node.attr)
    return None


def _look_up(function: FunctionType, path: tuple[str, ...]) -> Any:
    found = _look_up_name(function, path[0])
    for attribute in path[1:]:
        if not isinstance(found, ModuleType):  # attributes of other objects may change at any time
            return _MISSING
        found = getattr(found, attribute, _MISSING)
    return found


def _look_up_name(function: FunctionType, name: str) -> Any:
    names = function.__code__.co_freevars
    if name in names and function.__closure__ is not None:
        try:
            return function.__closure__[names.index(name)].cell_contents
        except ValueError:  # the cell is still empty
            return _MISSING
    return function.__globals__.get(name, getattr(builtins, name, _MISSING))
