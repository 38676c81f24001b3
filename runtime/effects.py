"""What host code may do besides computing: which functions it may call, and which code only computes.

Two ask. The linker asks of calls alone, whose meaning is the same in every run (`Callees`): `text("note", 24)` with
`def text(name, n): return rf.gen(name, max_tokens=n)` is as good as the primitive. Predictions (lang/guard.py) ask of
code on values (`why_not_harmless`). There it holds to a subset of Python: no calls but builtins that only compute,
methods of builtin types and of states, functions of a few modules, and functions of the user's that hold to it too.
Unlike quick code (runtime/hostwork.py) it may take its time. It may not change what outlives the run: the objects that
global names and variables of enclosing functions hold.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import BuiltinFunctionType, CellType, FunctionType, MemberDescriptorType, ModuleType
from typing import Any

from ..ir.syntax import walk
from .expression import Expression
from .hostwork import BUILTINS, METHODS, bound_names, changed, is_quick_expression
from .reading import Branches, Reading

_MODULES = {
    "base64", "bisect", "collections", "copy", "difflib", "hashlib", "heapq", "itertools", "json", "math", "operator",
    "re", "statistics", "string", "textwrap", "unicodedata",
}  # fmt: skip
_CALLABLE = BUILTINS | {"filter", "hash", "iter", "map", "next", "pow"}
_FORBIDDEN = (
    ast.With, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Await, ast.Yield, ast.YieldFrom,
    ast.AsyncFor, ast.AsyncWith, ast.AsyncFunctionDef, ast.Global, ast.Nonlocal,
)  # fmt: skip
_STATE_METHODS = {
    "fork", "join", "text", "messages", "sync", "error", "get_var", "set_var", "get_meta_info", "system", "user",
    "assistant", "role_begin", "role_end", "system_begin", "system_end", "user_begin", "user_end", "assistant_begin",
    "assistant_end",
}  # fmt: skip
_SCALARS = (str, int, float, bool, type(None), bytes)
_WALKED = (zip, enumerate, reversed)
_CONTAINERS = (list, tuple, set, frozenset, range)
_OURS = __name__.partition(".")[0]
_FIXED = (FunctionType, BuiltinFunctionType, ModuleType, type)
_MISSING = object()
_MAX_DEPTH = 8  # of functions that only call harmless ones
LookUp = Callable[[str], Any]


@dataclass(slots=True)
class Callees:
    """What the calls of some host code mean: for each name its globals, its attribute (or None) and the object."""

    found: list[tuple[Mapping[str, Any], str, str | None, Any]] = field(default_factory=list)

    def are_same(self) -> bool:
        """Whether all of it still means what it meant."""
        return all(_resolved(space, name, attribute) is meant for space, name, attribute, meant in self.found)

    def take(self, node: ast.expr, space: Mapping[str, Any], own: Collection[str], depth: int = 0) -> bool:
        """Whether a called expression is a harmless function from outside, and quick; remembers what it means.

        space: the globals. own: names that are bound inside.
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
        if not (_builds_an_expression(meant) or self._is_harmless(meant, depth)):
            return False
        self.found.append((space, name, attribute, meant))
        return True

    def _is_harmless(self, function: Any, depth: int) -> bool:
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
        calls = [node.func for node in walk(body) if isinstance(node, ast.Call)]
        space = function.__globals__
        called = {id(call) for call in calls if self.take(call, space, parameters, depth + 1)}
        return is_quick_expression(body, parameters, space, called)


def _resolved(space: Mapping[str, Any], name: str, attribute: str | None) -> Any:
    found = space.get(name)
    if attribute is None:
        return found
    return found.__dict__.get(attribute) if isinstance(found, ModuleType) else None


def _are_scalars(function: FunctionType) -> bool:
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return all(type(value) in _SCALARS for value in defaults)


def _returned(function: FunctionType) -> ast.expr | None:
    """The expression that a function returns, if that is all it does."""
    match _body(function):
        case [ast.Return(value=ast.expr() as value)]:
            return value
        case [ast.Expr(value=ast.Constant(value=str())), ast.Return(value=ast.expr() as value)]:
            return value
    return None


def _body(function: FunctionType) -> list[ast.stmt] | None:
    """The statements of a function; None where its source is not known."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function.__code__)))
    except (OSError, SyntaxError, TypeError):
        return None
    match tree.body:
        case [ast.FunctionDef(body=body)]:
            return body
    return None


class NoValue(Exception):
    """Raised by a look-up for a name that has no value."""


def why_not_harmless(
    body: Sequence[ast.stmt],
    inputs: Sequence[str],
    values: Sequence[Any],
    look_up: LookUp,
    *,
    shared: Mapping[str, CellType],
    knows_calls: bool,
) -> str | None:
    """What in the code, on these inputs, may do more than compute; None when nothing does.

    look_up gives what a name from outside holds now, and raises NoValue. shared: the variables that functions inside of
    the program share with it. knows_calls: whether all that is called is known to be harmless.
    """
    nodes = [node for statement in body for node in walk(statement)]
    inside = {*inputs, *shared, *bound_names(list(body))}
    held = [*zip(inputs, values, strict=False), *((name, _in_cell(cell)) for name, cell in shared.items())]
    return _why_not_code(nodes, inside, look_up, knows_calls=knows_calls) or _first(
        None if is_plain(value) or _gives_plain_attributes(value, name, nodes) else f"the value of {name!r}"
        for name, value in held
    )


def read_outside(
    body: Sequence[ast.stmt], inputs: Sequence[str], look_up: LookUp
) -> list[tuple[LookUp, str, Any]] | None:
    """What code, which is given values of builtin types, reads from outside of it, also in the functions that it calls:
    how names are looked up, each name, and its value now. None where the code may do more than compute with these.
    """
    nodes = [node for statement in body for node in walk(statement)]
    inside = {*inputs, *bound_names(list(body))}
    if _why_not_code(nodes, inside, look_up) is not None:
        return None
    found: list[tuple[LookUp, str, Any]] = []
    todo, seen = [(nodes, inside, look_up)], set[int]()
    while todo:
        nodes, inside, look_up = todo.pop()
        for name in {node.id for node in nodes if isinstance(node, ast.Name)} - inside:
            value = _value(name, look_up)
            found.append((look_up, name, value))
            if type(value) is FunctionType and not _builds_an_expression(value) and id(value) not in seen:
                seen.add(id(value))
                statements = _body(value) or []
                names = {*value.__code__.co_varnames, *bound_names(statements)}
                inner = [node for statement in statements for node in walk(statement)]
                todo.append((inner, names, _global_of(value)))
    return found


def still_read(found: Iterable[tuple[LookUp, str, Any]]) -> list[Any]:
    """What `read_outside` has found, as it is now, but for functions, classes and modules that are the same as then."""
    now = [(_value(name, look_up), then) for look_up, name, then in found]
    return [value for value, then in now if value is not then or not isinstance(then, _FIXED)]


def holds_state(values: Iterable[object]) -> bool:
    """Whether code that gets these values may read a state, and so may wait for an answer. Cells are looked into."""
    return any(isinstance(value, (Reading, Branches, *_WALKED)) for value in _reached(values))


def _in_cell(cell: CellType) -> object:
    """What a shared variable holds; None before it is assigned."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _why_not_code(
    nodes: Sequence[ast.AST], inside: set[str], look_up: LookUp, *, knows_calls: bool = False, depth: int = 0
) -> str | None:
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    why = None if knows_calls else _first(_why_not_call(call, inside, look_up, depth) for call in calls)
    called = {id(inner) for call in calls for inner in walk(call.func)} if knows_calls else set[int]()
    return why or _first(_why_not_node(node, inside, look_up, depth) for node in nodes if id(node) not in called)


def _why_not_function(function: object, depth: int) -> str | None:
    """What in a function of the user's may do more than compute, whatever plain values it is called with.

    Nothing is told ("") of what is no such function.
    """
    if type(function) is not FunctionType or function.__closure__ or depth > _MAX_DEPTH:
        return ""
    if not _are_scalars(function):
        return "a default that it could change"
    if (body := _body(function)) is None:
        return ""
    inside = {*function.__code__.co_varnames, *bound_names(body)}
    nodes = [node for statement in body for node in walk(statement)]

    return _why_not_code(nodes, inside, _global_of(function), depth=depth + 1)


def _global_of(function: FunctionType) -> LookUp:
    def look_up(name: str) -> Any:
        if name not in function.__globals__:
            raise NoValue
        return function.__globals__[name]

    return look_up


def _gives_plain_attributes(value: object, name: str, nodes: Sequence[ast.AST]) -> bool:
    """Whether code that changes nothing only reads attributes of an object, and these hold plain values."""
    if type(value).__getattribute__ is not object.__getattribute__ or any(_changed(node) for node in nodes):
        return False
    reads = [n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == name]
    if len(reads) != sum(isinstance(node, ast.Name) and node.id == name for node in nodes):
        return False
    return all(_is_plain_attribute(value, read.attr) for read in reads)


def _is_plain_attribute(value: object, name: str) -> bool:
    """Whether reading an attribute runs no code of the user's, and gives a plain value."""
    held = inspect.getattr_static(value, name, _MISSING)
    if isinstance(held, MemberDescriptorType):  # one of `__slots__`
        held = getattr(value, name, _MISSING)
    return is_plain(held)


def _first(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)


def _why_not_node(node: ast.AST, inside: set[str], look_up: LookUp, depth: int) -> str | None:
    if isinstance(node, _FORBIDDEN):
        return f"`{type(node).__name__.lower()}`"
    if (changed := _changed(node)) is not None and changed not in inside:
        return f"a change of {changed!r}"
    if not isinstance(node, ast.Name) or node.id in inside:
        return None
    return None if _is_harmless_value(_value(node.id, look_up), node.id, depth) else f"the name {node.id!r}"


def is_plain(value: object) -> bool:
    """Whether a value is of builtin types through and through, or a state."""
    known, others = (*_SCALARS, *_CONTAINERS, dict), (Reading, Branches, Expression, BaseException, type, *_WALKED)
    return all(type(each) in known or isinstance(each, others) for each in _reached([value]))


def _reached(values: Iterable[object]) -> Iterator[object]:
    """The values, and what is in the builtin containers and the shared variables among them."""
    todo, seen = list(values), set[int]()
    while todo:
        each: Any = todo.pop()
        if id(each) in seen and type(each) not in _SCALARS:
            continue
        seen.add(id(each))
        yield each
        if type(each) is dict:
            todo.extend(each)
            todo.extend(each.values())
        elif type(each) in _CONTAINERS and type(each) is not range:
            todo.extend(each)
        elif type(each) is CellType:
            todo.append(_in_cell(each))


def _why_not_call(node: ast.Call, inside: set[str], look_up: LookUp, depth: int) -> str | None:
    match node.func:
        case ast.Name(id=name) if name not in inside:
            value = _value(name, look_up)
            is_known = (name in _CALLABLE and value is getattr(builtins, name)) or _is_exception(value)
            return None if is_known else _why_not_callee(f"the call of {name}()", value, depth)
        case ast.Name(id=name):
            return f"the call of {name}()"
        case ast.Attribute(value=ast.Name(id=module), attr=attr) if module not in inside:
            held = _value(module, look_up)
            if isinstance(held, ModuleType):
                told = f"the call of {module}.{attr}()"
                return None if held.__name__ in _MODULES else _why_not_callee(told, getattr(held, attr, None), depth)
            return None if attr in METHODS else f"the call of .{attr}()"
        case ast.Attribute(attr=attr):
            return None if attr in METHODS or attr in _STATE_METHODS else f"the call of .{attr}()"
    return "a call"


def _why_not_callee(told: str, value: object, depth: int) -> str | None:
    if _builds_an_expression(value) or (why := _why_not_function(value, depth)) is None:
        return None
    return f"{told}: {why}" if why else told


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == "builtins"


def _builds_an_expression(value: object) -> bool:
    """Whether it is a primitive of the language that reads no file."""
    return type(value) is FunctionType and getattr(value, "__ramify__", None) not in (None, "image", "video")


def _is_harmless_value(value: object, name: str, depth: int) -> bool:
    if isinstance(value, ModuleType):
        return value.__name__ in (*_MODULES, _OURS)
    if is_plain(value) or _builds_an_expression(value) or value is getattr(builtins, name, _MISSING):
        return True
    return _why_not_function(value, depth) is None


def _value(name: str, look_up: LookUp) -> Any:
    """What a name from outside holds; a value of no plain type when it has none."""
    try:
        return look_up(name)
    except NoValue:
        return getattr(builtins, name, _MISSING)


def _changed(node: ast.AST) -> str | None:
    """The name whose object a node may change, if it does."""
    found = changed(node)
    return None if found is None else _root(found)


def _root(node: ast.expr) -> str | None:
    """The name at the left end of `a.b[0].c`."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
