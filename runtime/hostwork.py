"""Decides whether host code may run on the loop thread: code that cannot block, on values that cannot either.

It holds to a small subset of Python (no calls but harmless builtins and methods of builtin types, no loops, no
imports), and to inputs of builtin types. Everything else goes to the host pool, which is always right and only slower.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..ir.core import Op
from ..ir.syntax import walk
from .prompt import Prompt
from .reading import Branches, Reading

BUILTINS = {
    "abs", "all", "any", "bool", "bytes", "chr", "dict", "divmod", "enumerate", "float", "format", "frozenset", "int",
    "isinstance", "len", "list", "max", "min", "ord", "range", "repr", "reversed", "round", "set", "sorted", "str",
    "sum", "tuple", "type", "zip",
}  # fmt: skip
_EXCEPTIONS = {n for n, v in vars(builtins).items() if isinstance(v, type) and issubclass(v, BaseException)}
_QUICK_NAMES = BUILTINS | _EXCEPTIONS
METHODS = {
    name for kind in (str, bytes, list, tuple, dict, set, frozenset, int, float) for name in dir(kind) if name[0] != "_"
}
_SLOW_NODES = (
    ast.For, ast.While, ast.With, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Await,
    ast.Yield, ast.YieldFrom, ast.AsyncFor, ast.AsyncWith, ast.AsyncFunctionDef, ast.Global, ast.Nonlocal,
)  # fmt: skip
_SCALARS = {str, int, float, bool, type(None), bytes}
_CONTAINERS = {list, tuple, set, frozenset, range}
# How many values of containers are looked at; larger ones count as unknown.
_BUDGET = 100


def outside_names(
    op: Op, body: list[ast.stmt], shadowed: Collection[str], is_harmless: Callable[[ast.expr, set[str]], bool]
) -> list[str] | None:
    """The names from outside that quick code reads; None when the code is not quick.

    shadowed: names that do not mean the builtin here. is_harmless: whether what is called, given the names bound
    inside, is a function from outside that is quick too.
    """
    if not _is_bounded(body):
        return None
    inside = set(op.attrs["inputs"]) | bound_names(body)
    nodes = [node for statement in body for node in walk(statement)]
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call) and is_harmless(node.func, inside)}
    return _outside(nodes, inside, shadowed, called)


def is_quick_expression(
    body: ast.expr, parameters: set[str], space: Mapping[str, object], called: Collection[int]
) -> bool:
    """Whether the value of a function of such a body is quick to find. called: harmless functions that it calls."""
    nodes, statements = list(walk(body)), list[ast.stmt]([ast.Return(body)])
    return _is_bounded(statements) and _outside(nodes, parameters | bound_names(statements), space, called) == []


def _outside(
    nodes: list[ast.AST], inside: set[str], shadowed: Collection[str], called: Collection[int]
) -> list[str] | None:
    known = {id(inner) for node in nodes if id(node) in called for inner in walk(node)}
    outside: set[str] = set()
    for node in nodes:
        if isinstance(node, _SLOW_NODES) or (
            isinstance(node, ast.Call) and id(node.func) not in called and not _is_quick_call(node, inside, shadowed)
        ):
            return None
        if id(node) in known or not isinstance(node, ast.Name):
            continue
        if node.id not in inside and not _is_builtin(node.id, shadowed):
            outside.add(node.id)
    return sorted(outside)


_LAZY_CALLS = {"range", "enumerate", "zip", "reversed", "len"}


def _is_bounded(body: list[ast.stmt]) -> bool:
    """Whether no `range` is run through: that alone can make work that does not depend on the inputs' size."""
    nodes = [node for statement in body for node in walk(statement)]
    if not any(isinstance(node, ast.Name) and node.id == "range" for node in nodes):
        return True
    called = {node.func.id if isinstance(node.func, ast.Name) else "" for node in nodes if isinstance(node, ast.Call)}
    return called <= _LAZY_CALLS and not any(isinstance(node, ast.comprehension | ast.Starred) for node in nodes)


def _is_builtin(name: str, shadowed: Collection[str]) -> bool:
    return name in _QUICK_NAMES and name not in shadowed


def _is_quick_call(node: ast.Call, inside: set[str], shadowed: Collection[str]) -> bool:
    match node.func:
        case ast.Name(id=name):
            return name not in inside and _is_builtin(name, shadowed)
        case ast.Attribute(attr=method):
            return method in METHODS
    return False


_MOVING_CALLS = {"enumerate", "zip", "list", "tuple", "reversed", "len", "range"}
_MOVING_METHODS = {"append", "extend", "insert", "pop", "reverse", "clear"}


@dataclass(slots=True)
class Uses:
    """What quick code does with its inputs. It looks into the values of some names; it gets items from those of others,
    or puts items into them. The rest it only passes on: even a State among these is never looked into.
    """

    looked: set[str] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, body: list[ast.stmt], inputs: Collection[str], shadowed: Collection[str]) -> Uses:
        """The uses of the inputs. shadowed: names that do not mean the builtin."""
        uses = cls()
        for statement in body:
            uses._statement(statement, _MOVING_CALLS.difference(shadowed))
        if (uses.looked | uses.opened) & _assigned(body):
            return cls(set(inputs))  # what was passed on is looked into under another name
        return uses

    def _statement(self, node: ast.stmt, calls: Collection[str]) -> None:
        match node:
            case ast.Expr(value=value) | ast.Return(value=ast.expr() as value):
                self._moved(value, calls)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._moved(target, calls)
                unpacks = any(isinstance(target, ast.Tuple | ast.List) for target in targets)
                (self._opened if unpacks else self._moved)(value, calls)
            case _:
                self._look(node)

    def _moved(self, node: ast.expr, calls: Collection[str]) -> None:
        """An expression whose value is only passed on, or a target."""
        match node:
            case ast.Name() | ast.Constant():
                pass
            case ast.Tuple(elts=items) | ast.List(elts=items):
                for item in items:
                    self._moved(item, calls)
            case ast.Starred(value=value):
                self._opened(value, calls)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in calls:
                for argument in (*args, *(keyword.value for keyword in keywords)):
                    self._opened(argument, calls)
            case ast.Call(func=ast.Attribute(value=receiver, attr=method), args=args, keywords=[]) if (
                method in _MOVING_METHODS
            ):
                self._opened(receiver, calls)
                for argument in args:
                    (self._opened if method == "extend" else self._moved)(argument, calls)
            case ast.Subscript(value=ast.Name() as base, slice=index):
                self._opened(base, calls)
                self._look(index)
            case _:
                self._look(node)

    def _opened(self, node: ast.expr, calls: Collection[str]) -> None:
        """An expression whose items are passed on."""
        if isinstance(node, ast.Name):
            self.opened.add(node.id)
        else:
            self._moved(node, calls)

    def _look(self, node: ast.AST) -> None:
        self.looked |= {inner.id for inner in walk(node) if isinstance(inner, ast.Name)}


def _assigned(body: list[ast.stmt]) -> set[str]:
    """Names that the code assigns, but for those of comprehensions."""
    nodes = [node for statement in body for node in walk(statement)]
    inner = {id(name) for node in nodes if isinstance(node, ast.comprehension) for name in walk(node.target)}
    stores = [node for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return {name.id for name in stores if id(name) not in inner}


_CHANGING_METHODS = {
    "append", "extend", "insert", "pop", "popitem", "remove", "clear", "sort", "reverse", "update", "setdefault", "add",
    "discard", "difference_update", "intersection_update", "symmetric_difference_update",
}  # fmt: skip


def may_change(body: list[ast.stmt]) -> bool:
    """Whether quick code may change an object that it is given, or what it gets out of one."""
    nodes = (node for statement in body for node in walk(statement))
    return any(isinstance(node, ast.AugAssign) or changed(node) is not None for node in nodes)


def changed(node: ast.AST) -> ast.expr | None:
    """The expression whose object a node may change: by a method of a builtin type, an item or an attribute."""
    match node:
        case ast.Call(func=ast.Attribute(value=value, attr=attr)) if attr in _CHANGING_METHODS:
            return value
        case ast.Attribute(value=value, attr=attr) if attr in _CHANGING_METHODS:
            return value
        case ast.Subscript(value=value, ctx=ast.Store() | ast.Del()):
            return value
        case ast.Attribute(value=value, ctx=ast.Store() | ast.Del()):
            return value
    return None


@dataclass(slots=True)
class Reached:
    """What can be reached from some values: the objects that may be changed, by their ids; whether states are."""

    mutable: dict[int, Any] = field(default_factory=dict)
    has_states: bool = False


def reach(values: Iterable[Any], known: Container[int] = (), budget: int = _BUDGET) -> Reached | None:
    """What can be reached from values of builtin types. Objects whose ids are `known`, and states, are not looked into.

    None when that is not known: for other objects, or when there are more than `budget` of them.
    """
    reached = Reached()
    found, todo = reached.mutable, list(values)
    while todo:
        value = todo.pop()
        kind = type(value)
        if kind in _SCALARS or kind is range or id(value) in found:
            continue
        if kind not in _CONTAINERS and kind is not dict:
            if not isinstance(value, Reading | Branches):
                return None
            reached.has_states |= not isinstance(value, Prompt)
            continue
        if kind is not tuple and kind is not frozenset:
            found[id(value)] = value
            if id(value) in known:
                continue
        budget -= len(value)
        if budget < 0:
            return None
        todo.extend([*value.keys(), *value.values()] if kind is dict else value)
    return reached


def bound_names(body: list[ast.stmt]) -> set[str]:
    """Names that the code binds itself, also in comprehensions and lambdas."""
    names: set[str] = set()
    for node in (node for statement in body for node in walk(statement)):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                names.add(name)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                names.add(name)
    return names


def are_plain(values: Iterable[Any], also: tuple[type, ...]) -> bool:
    """Whether the values are of builtin types through and through, or of those in `also`."""
    todo = list(values)
    budget = _BUDGET
    while todo:
        value = todo.pop()
        kind = type(value)
        if kind in _SCALARS:
            continue
        if kind is dict:
            budget -= 2 * len(value)
            items = [*value.keys(), *value.values()] if budget >= 0 else []
        elif kind in _CONTAINERS:
            budget -= len(value)
            items = list(value) if budget >= 0 and kind is not range else []
        elif isinstance(value, also):
            continue
        else:
            return False
        if budget < 0:
            return False
        todo.extend(items)
    return True
