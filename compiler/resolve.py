"""What a name in the user's code refers to when the function is compiled: primitives, programs, helper functions.

Only names that are not local variables are looked up (closure, globals, builtins, attributes of modules and classes),
and methods of the receiver, whose class is given. Each lookup is recorded as a `Binding`, so that a compiled program
can tell later that a global was rebound and compile again.
"""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from ..ir.private import mangled, private_prefix, unmangled
from ..ir.syntax import walk
from .scope import Scope

MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Binding:
    """A name that was looked up in `function`'s surroundings, or in a class, and what it meant then."""

    where: FunctionType | type
    path: tuple[str, ...]
    found: Any

    def holds(self) -> bool:
        """Whether the name still means the same object."""
        if isinstance(self.where, type):
            return _attribute(self.where, self.path[0]) is self.found
        return look_up(self.where, self.path) is self.found


@dataclass(frozen=True, slots=True)
class Callee:
    """What a call runs: a Python function; of a method, also the class of its first argument, if it is known.

    method: the name under which the function was found in the class of the object that the call names.
    """

    function: FunctionType
    receiver: type | None = None
    method: str | None = None


def shadowed(function: FunctionType, names: Collection[str], bindings: list[Binding]) -> set[str]:
    """Those of some builtin names that mean something else in a function. What they mean is added to `bindings`."""
    meanings = {name: _look_up_name(function, name) for name in names}
    bindings.extend(Binding(function, (name,), found) for name, found in meanings.items())
    return {name for name, found in meanings.items() if found is not getattr(builtins, name)}


@dataclass(slots=True)
class Resolver:
    """Looks names up for one function and remembers what it found. receiver: the name of a method's first parameter,
    and its class.
    """

    function: FunctionType
    scope: Scope
    bindings: list[Binding] = field(default_factory=list)
    receiver: tuple[str, type] | None = None

    @property
    def prefix(self) -> str:
        """What private names begin with here."""
        return private_prefix(self.function.__qualname__)

    @property
    def first_parameter(self) -> str:
        """The name of the function's first parameter."""
        return unmangled(self.function.__code__.co_varnames[0], self.prefix)

    def find(self, node: ast.expr) -> Any:
        """The object that a name or dotted name refers to; None when it is local, dynamic or unknown."""
        path = _path(node)
        if path is None or path[0] in self.scope.locals | self.scope.outer:
            return None
        path = tuple(mangled(name, self.prefix) for name in path)
        found = look_up(self.function, path)
        if found is MISSING:
            return None
        self.bindings.append(Binding(self.function, path, found))
        return found

    def is_steady(self, name: str) -> bool:
        """Whether a name from outside means what code will hardly change: a function, class, module or program."""
        found = _look_up_name(self.function, mangled(name, self.prefix))
        return isinstance(found, FunctionType | BuiltinFunctionType | type | ModuleType) or _is_program(found)

    def is_defined(self, name: str) -> bool:
        """Whether a name from outside means something now."""
        return _look_up_name(self.function, mangled(name, self.prefix)) is not MISSING

    def primitive(self, node: ast.expr) -> str | None:
        """The kind of primitive that is called by `node` ("gen", "user", ...), or None."""
        if not isinstance(node, ast.Call):
            return None
        mark = getattr(self.find(node.func), "__ramify__", None)
        return mark if isinstance(mark, str) and mark not in ("program", "tool") else None

    def pure_tool(self, node: ast.expr) -> Any:
        """The tool that a call runs, if it is one that may run while the program goes on; else None."""
        if not isinstance(node, ast.Call) or (path := _path(node.func)) is None or path[0] in self.scope.locals:
            return None
        found = look_up(self.function, path)
        if getattr(found, "__ramify__", None) != "tool" or not found.pure:
            return None
        self.bindings.append(Binding(self.function, path, found))
        return found

    def calls_pure_tool(self, node: ast.AST) -> bool:
        """Whether such a call occurs anywhere below the node."""
        return any(self.pure_tool(each) is not None for each in walk(node) if isinstance(each, ast.Call))

    def helper(self, node: ast.Call, *, is_awaited: bool = False) -> Callee | None:
        """What a call runs: the function of a program, or a helper with source of its own; or a method of either.

        is_awaited: whether the call's value is awaited; only coroutine functions are found then, and no others else.
        """
        callee = self._callee(node)
        if callee is None or inspect.iscoroutinefunction(callee.function) != is_awaited:
            return None
        return callee

    def why_python(self, node: ast.Call) -> str | None:
        """Why a call that was given a state runs as Python; None if no function with source of its own is called."""
        found = self.find(node.func)
        function = found.fn if _is_program(found) else found
        if not isinstance(function, FunctionType) or (not _is_program(found) and hasattr(found, "__ramify__")):
            return None
        name = function.__qualname__
        if hasattr(function, "__wrapped__"):
            return f"{name} is wrapped by a decorator"
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            return f"{name} is a generator"
        if inspect.iscoroutinefunction(function):
            return None if _is_program(found) else f"{name} is not awaited here"  # a program becomes a part of the run
        if any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords):
            return f"{name} is called with * or **"
        if named_arguments(function, node.args, node.keywords) is None:
            return f"{name} does not take all of the arguments by name"
        return f"{name} is called in an expression that is not always evaluated"

    def _callee(self, node: ast.Call) -> Callee | None:
        match node.func:
            case ast.Attribute(value=ast.Name(id=name), attr=method) if self.receiver and name == self.receiver[0]:
                return self._method(self.receiver[1], mangled(method, self.prefix))
        function = _plain_function(self.find(node.func))
        return None if function is None else Callee(function)

    def _method(self, receiver: type, name: str) -> Callee | None:
        found = _attribute(receiver, name)
        function = _plain_function(found, on_instance=True)
        if function is None:
            return None
        self.bindings.append(Binding(receiver, (name,), found))
        return Callee(function, receiver, name)


def named_arguments(
    function: FunctionType, positional: Sequence[ast.expr], keywords: Sequence[ast.keyword]
) -> dict[str, ast.expr] | None:
    """The arguments of a call by parameter; None if some go into *args or **kwargs, or nowhere."""
    parameters = inspect.signature(function).parameters.values()
    kinds = inspect.Parameter
    by_place = [p.name for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    by_name = {p.name for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)}
    if len(positional) > len(by_place) or any(keyword.arg not in by_name for keyword in keywords):
        return None
    named = dict(zip(by_place, positional, strict=False))
    return named | {keyword.arg: keyword.value for keyword in keywords if keyword.arg is not None}


def is_direct(callee: Callee, num_positional: int, keywords: Sequence[str | None]) -> bool:
    """Whether it is known which value each parameter gets, and that the call does nothing but run the function."""
    signature, kinds = inspect.signature(callee.function), inspect.Parameter
    if callee.method is not None or inspect.iscoroutinefunction(callee.function):
        return False
    if any(p.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD) for p in signature.parameters.values()):
        return False
    try:
        signature.bind(*[None] * num_positional, **{str(name): None for name in keywords})
    except TypeError:
        return False
    return True


def _plain_function(found: Any, *, on_instance: bool = False) -> FunctionType | None:
    """The Python function behind what was found, if it can be compiled. on_instance: whether it is called on one."""
    if _is_program(found):
        if on_instance and found.binds != "instance":
            return None  # the call passes something else on
        found = found.fn
    if not isinstance(found, FunctionType) or hasattr(found, "__wrapped__"):
        return None
    return None if inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found) else found


def _path(node: ast.expr) -> tuple[str, ...] | None:
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute) and (base := _path(node.value)) is not None:
        return (*base, node.attr)
    return None


def look_up(function: FunctionType, path: tuple[str, ...]) -> Any:
    """What a dotted name means in a function, where that runs no code of the user's; MISSING if that is not known."""
    found = _look_up_name(function, path[0])
    for attribute in path[1:]:
        if isinstance(found, ModuleType):
            found = getattr(found, attribute, MISSING)
        elif isinstance(found, type):
            found = _class_attribute(found, attribute)
        else:  # attributes of other objects may change at any time
            return MISSING
    return found


def _class_attribute(owner: type, name: str) -> Any:
    """What `owner.name` gives, where that runs no code of the user's and is the same each time."""
    kind = type(owner)
    if kind.__getattribute__ is not type.__getattribute__ or _attribute(kind, name) is not MISSING:
        return MISSING
    found = _attribute(owner, name)
    if isinstance(found, staticmethod):
        return found.__func__
    if _is_program(found):
        return MISSING if found.binds == "class" else found
    return found if isinstance(found, FunctionType) or not hasattr(type(found), "__get__") else MISSING


def _attribute(owner: type, name: str) -> Any:
    """What the class holds under a name, as it stands in the body; runs no code of the user's."""
    for each in owner.__mro__:
        if name in each.__dict__:
            return each.__dict__[name]
    return MISSING


def _is_program(found: object) -> bool:
    return getattr(found, "__ramify__", None) == "program"


def _look_up_name(function: FunctionType, name: str) -> Any:
    names = function.__code__.co_freevars
    if name in names and function.__closure__ is not None:
        try:
            return function.__closure__[names.index(name)].cell_contents
        except ValueError:  # the cell is still empty
            return MISSING
    found = function.__globals__.get(name, MISSING)
    return getattr(builtins, name, MISSING) if found is MISSING else found
