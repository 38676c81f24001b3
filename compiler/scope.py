"""What the names of one function are: locals, boxed variables, states and lists of states.

A *state* name always holds a State; a *states* name always holds a list or group of them. Both are inferred from how
the names are assigned, without running anything; a name assigned in two ways is an ordinary host variable, and what
is done with it is host code, with the same meaning.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .source import Definition, Source, own_nodes

Kind = Literal["state", "states", "obj"]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


@dataclass(slots=True)
class Scope:
    """The names of a function. `kinds` lists states and lists of states only; all other names are host variables.

    joins: whether a fork's group may be joined, here or by code that gets hold of it. shadowed: names that do not mean
    the builtin, though they look it. unstable: names of lists that something else than a state may be put into.
    outer: names that are declared `global` or `nonlocal`.
    """

    locals: set[str]
    boxed: set[str]
    kinds: dict[str, Kind] = field(default_factory=dict)
    joins: bool = False
    shadowed: set[str] = field(default_factory=set)
    unstable: set[str] = field(default_factory=set)
    outer: set[str] = field(default_factory=set)

    def is_builtin(self, name: str) -> bool:
        """Whether a name means the builtin function here."""
        return name not in self.locals and name not in self.shadowed

    def kind(self, node: ast.expr) -> Kind:
        """What an expression evaluates to, as far as its form tells."""
        match node:
            case ast.Name(id=name):
                return self.kinds.get(name, "obj")
            case ast.Call(func=ast.Attribute(value=base, attr="copy"), args=[]) if self.kind(base) == "state":
                return "state"
            case ast.Call(func=ast.Attribute(value=base, attr="fork")) if self.kind(base) == "state":
                return "states"
            case ast.Call(func=ast.Name(id="list" | "tuple" | "reversed" as name), args=[only]) if self.is_builtin(
                name
            ):
                return self.kind(only) if self.kind(only) == "states" else "obj"
            case ast.Subscript(value=base, slice=index) if self.kind(base) == "states":
                return "states" if isinstance(index, ast.Slice) else "state"
            case ast.List(elts=items) | ast.Tuple(elts=items) if items:
                return "states" if all(self.kind(item) == "state" for item in items) else "obj"
            case ast.ListComp(elt=item):
                return "states" if self.kind(item) == "state" else "obj"
            case ast.IfExp(body=yes, orelse=no) if self.kind(yes) == self.kind(no):
                return self.kind(yes)
        return "obj"

    def mentions(self, node: ast.AST) -> bool:
        """Whether a state or a list of states occurs anywhere below the node."""
        return any(isinstance(n, ast.Name) and n.id in self.kinds for n in ast.walk(node))


def analyse(source: Source, state_params: set[str], shadowed: set[str]) -> Scope:
    """The scope of a function whose parameters in `state_params` are states. shadowed: see Scope."""
    tree = source.tree
    declared = [node for node in own_nodes(tree) if isinstance(node, ast.Global | ast.Nonlocal)]
    outer = {name for node in declared for name in node.names}
    bound = (_parameters(tree) | set(stored_names(*tree.body))) - outer
    scope = Scope(bound, _boxed(tree, bound), shadowed=shadowed, outer=outer)
    _settle(scope, tree, state_params)
    while (unstable := _unstable(scope, tree)) - scope.unstable:
        scope.unstable |= unstable
        _settle(scope, tree, state_params)
    scope.joins = _may_join(scope, tree)
    return scope


def _settle(scope: Scope, tree: Definition, state_params: set[str]) -> None:
    """Infer what the names are, given those that are known to be unstable."""
    scope.kinds = dict.fromkeys(state_params, "state")
    assigned: list[tuple[str, ast.expr | Kind]]
    assigned = [(name, "obj") for name in _parameters(tree) - state_params | scope.unstable | scope.outer]
    assigned += _bindings(tree, scope.shadowed | scope.locals)
    for _ in range(len(assigned) + 1):  # kinds feed each other (a = s.fork(2); b = a[0]): go on until nothing changes
        kinds = _infer(scope, assigned, state_params)
        if kinds == scope.kinds:
            break
        scope.kinds = kinds


_HARMLESS_CALLS = {"zip", "enumerate", "len", "list", "tuple", "reversed"}
_READING_CALLS = _HARMLESS_CALLS | {"max", "min", "sorted", "any", "all", "sum"}
LOOKED_INTO = frozenset(_READING_CALLS)


def _unstable(scope: Scope, tree: Definition) -> set[str]:
    """Names of lists of states that may not stay such: the lists are used for more than looking at their items."""
    nodes = own_nodes(tree)
    groups = {name for name, values in _by_name(tree).items() if all(map(_is_fork, values))}
    lists = {name for name, kind in scope.kinds.items() if kind == "states" and name not in groups}
    appended = {id(node.target) for node in nodes if isinstance(node, ast.AugAssign)}
    used = {
        child.id
        for node in nodes
        for child in ast.iter_child_nodes(node)
        if isinstance(child, ast.Name) and child.id in lists and not _only_looks(scope, node, child, appended)
    }
    return used | (lists & scope.boxed)


def _by_name(tree: Definition) -> dict[str, list[ast.expr | Kind]]:
    found: dict[str, list[ast.expr | Kind]] = {}
    for name, value in _bindings(tree):
        found.setdefault(name, []).append(value)
    return found


def _is_fork(value: ast.expr | Kind) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "fork"


def _only_looks(scope: Scope, parent: ast.AST, name: ast.Name, appended: set[int]) -> bool:
    """Whether this use of a list leaves it, and all who may change it, as they are."""
    if isinstance(name.ctx, ast.Store):
        return id(name) not in appended
    match parent:
        case ast.Subscript(ctx=ast.Load()) | ast.For() | ast.comprehension() | ast.Expr() | ast.Return():
            return True
        case ast.Subscript():
            return id(parent) in appended
        case ast.Call(func=ast.Name(id=function)):
            return function in _READING_CALLS and scope.is_builtin(function)
        case ast.Assign(targets=targets):
            return all(isinstance(t, ast.Tuple | ast.List) or scope.kind(t) == "states" for t in targets)
    return False


def _may_join(scope: Scope, tree: Definition) -> bool:
    """Whether a list of states is used for more than iterating, indexing, counting and appending to it."""
    nodes = own_nodes(tree)
    if any(scope.kinds.get(name) == "states" for name in scope.boxed):
        return True
    return any(
        isinstance(child, ast.expr) and scope.kind(child) == "states" and not _harmless(scope, node, child)
        for node in nodes
        for child in ast.iter_child_nodes(node)
    )


def _harmless(scope: Scope, parent: ast.AST, child: ast.expr) -> bool:
    match parent:
        case ast.For() | ast.comprehension() | ast.Subscript() | ast.AugAssign() | ast.Expr():
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in _HARMLESS_CALLS and scope.is_builtin(name)
        case ast.Assign(targets=targets):
            return all(isinstance(t, ast.Tuple | ast.List) or scope.kind(t) == "states" for t in targets)
    return False


def _infer(scope: Scope, assigned: list[tuple[str, ast.expr | Kind]], state_params: set[str]) -> dict[str, Kind]:
    seen: dict[str, set[Kind]] = {name: {"state"} for name in state_params}
    for name, value in assigned:
        kind = value if isinstance(value, str) else _value_kind(scope, value)
        seen.setdefault(name, set()).add(kind)
    return {name: next(iter(kinds)) for name, kinds in seen.items() if len(kinds) == 1 and kinds != {"obj"}}


def _value_kind(scope: Scope, value: ast.expr) -> Kind:
    if isinstance(value, _Item):
        return "state" if scope.kind(value.of) == "states" else "obj"
    return scope.kind(value)


class _Item(ast.expr):
    """An element of an iterable: what a loop target or an unpacked name is bound to."""

    def __init__(self, of: ast.expr) -> None:
        super().__init__()
        self.of = of


def _parameters(tree: Definition) -> set[str]:
    arguments = tree.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {argument.arg for argument in named if argument is not None}


def _bindings(tree: ast.AST, shadowed: Collection[str] = ()) -> Iterator[tuple[str, ast.expr | Kind]]:
    """Each binding of a local name with the expression it comes from, or "obj" where that is of no use."""
    for node in own_nodes(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    yield from _targets(target, value)
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name, "obj"
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                yield name, value
            case ast.For(target=target, iter=items) | ast.AsyncFor(target=target, iter=items):
                yield from _loop_targets(target, items, shadowed)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                for generator in node.generators:
                    yield from _loop_targets(generator.target, generator.iter, shadowed)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, "obj"
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name, "obj"
            case ast.MatchMapping(rest=str(name)):
                yield name, "obj"
            case ast.alias(name=name, asname=asname):
                yield asname or name.partition(".")[0], "obj"
            case ast.Delete(targets=targets):
                yield from ((t.id, "obj") for t in targets if isinstance(t, ast.Name))
            case ast.withitem(context_expr=entered, optional_vars=ast.Name(id=name)):
                yield name, _entered(entered)
            case ast.withitem(optional_vars=target) if target is not None:
                yield from ((n, "obj") for n in stored_names(target))


_SCOPES = {"system", "user", "assistant", "role", "var_scope", "unordered"}


def _entered(node: ast.expr) -> ast.expr:
    """What a context manager gives on entry, as far as states go: a scope of a state its state, a state itself."""
    match node:
        case ast.Call(func=ast.Attribute(value=base, attr=method)) if method in _SCOPES:
            return base
    return node


def _targets(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr | Kind]]:
    match target, value:
        case ast.Name(id=name), _:
            yield name, value
        case (ast.Tuple(elts=names) | ast.List(elts=names), ast.Tuple(elts=values) | ast.List(elts=values)) if len(
            names
        ) == len(values) and not any(isinstance(n, ast.Starred) for n in [*names, *values]):
            for each, item in zip(names, values, strict=True):
                yield from _targets(each, item)
        case ast.Tuple(elts=names) | ast.List(elts=names), _:
            for each in names:
                if isinstance(each, ast.Name):
                    yield each.id, _Item(value)
                else:
                    yield from ((n, "obj") for n in stored_names(each))


def _loop_targets(
    target: ast.expr, items: ast.expr, shadowed: Collection[str]
) -> Iterator[tuple[str, ast.expr | Kind]]:
    match target, items:
        case ast.Tuple(), ast.Call(func=ast.Name(id=function)) if function in shadowed:
            yield from ((n, "obj") for n in stored_names(target))
        case ast.Tuple(elts=[counter, rest]), ast.Call(func=ast.Name(id="enumerate"), args=[inner, *_]):
            yield from ((n, "obj") for n in stored_names(counter))
            yield from _loop_targets(rest, inner, shadowed)
        case ast.Tuple(elts=names), ast.Call(func=ast.Name(id="zip"), args=inners) if len(names) == len(inners):
            for name, inner in zip(names, inners, strict=True):
                yield from _loop_targets(name, inner, shadowed)
        case ast.Name(id=name), _:
            yield name, _Item(items)
        case _:
            yield from ((n, "obj") for n in stored_names(target))


def stored_names(*nodes: ast.AST) -> list[str]:
    """The names that pieces of code bind in their own scope, each once, sorted."""
    names: set[str] = set()
    for node in nodes:
        inner = _comprehension_names(node)
        names |= {name for child in _scope_nodes(node) if id(child) not in inner and (name := _bound_by(child))}
    return sorted(names)


def _bound_by(node: ast.AST) -> str | None:
    """The name that a node itself binds, or unbinds."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return name
        case ast.MatchMapping(rest=str(name)):
            return name
        case ast.alias(name=name, asname=asname):
            return asname or name.partition(".")[0]
    return None


def num_mentions(name: str, nodes: Sequence[ast.AST]) -> int:
    """How often a name is read or bound in pieces of code, in nested scopes too."""
    walked = (child for node in nodes for child in ast.walk(node))
    return sum((isinstance(child, ast.Name) and child.id == name) or _bound_by(child) == name for child in walked)


def _scope_nodes(node: ast.AST) -> list[ast.AST]:
    """The node and what lies below it in the same scope."""
    return [node] if isinstance(node, _FUNCTIONS) else [node, *own_nodes(node)]


def _comprehension_names(node: ast.AST) -> set[int]:
    """Identities of the Name nodes that comprehensions bind in scopes of their own."""
    return {
        id(name)
        for child in _scope_nodes(node)
        if isinstance(child, ast.comprehension)
        for name in ast.walk(child.target)
    }


def _boxed(tree: Definition, bound: set[str]) -> set[str]:
    """Local names that a nested function, class or free-standing generator expression refers to."""
    boxed: set[str] = set()
    consumed = {id(a) for n in own_nodes(tree) if isinstance(n, ast.Call) for a in n.args}
    for node in own_nodes(tree):
        if isinstance(node, _FUNCTIONS) or (isinstance(node, ast.GeneratorExp) and id(node) not in consumed):
            boxed |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - _inner_names(node)
    return boxed & bound


def _inner_names(node: ast.AST) -> set[str]:
    """Names that the nested scope binds itself, unless it declares them nonlocal."""
    if isinstance(node, ast.Lambda):
        return {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        shared = {n for child in ast.walk(node) if isinstance(child, ast.Nonlocal) for n in child.names}
        return (_parameters(node) | {name for name, _ in _bindings(node)}) - shared
    if isinstance(node, ast.GeneratorExp):
        return {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
    return set()
