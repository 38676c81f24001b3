"""What the names of one function are: locals, boxed variables, states, and lists and tuples with states in them.

A name's kind (kinds.py) is inferred from how the name is assigned and, for a list, from what is put into it, without
running anything; a name assigned in two ways is an ordinary host variable, and what is done with it is host code, with
the same meaning.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..ir.syntax import walk
from .kinds import STATES, Each, Kind, Many, each, holds_state, item_of, join, many, part_of
from .source import Definition, Source, displayed, own_nodes

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


@dataclass(slots=True)
class Scope:
    """The names of a function. `kinds` lists those that hold states; all other names are host variables.

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
        """What an expression evaluates to, as far as its form tells; "obj" if that holds no states."""
        kind = self.any_kind(node)
        return kind if holds_state(kind) else "obj"

    def any_kind(self, node: ast.expr) -> Kind:
        """The same, also of lists and tuples without states (or without any yet)."""
        match node:
            case ast.Name(id=name):
                return self.kinds.get(name, "obj")
            case Derived():
                return node.kind(self)
            case ast.Call(func=ast.Attribute(value=base, attr=method)):
                return _of_method(method, self.any_kind(base))
            case ast.Call(func=ast.Name(id=name)) if self.is_builtin(name):
                return self._of_builtin(name, node)
            case ast.Subscript(value=base, slice=index):
                return _of_subscript(self.any_kind(base), index)
            case ast.List(elts=items):
                return many(join(map(self._put, items)))
            case ast.Tuple(elts=items) if not any(isinstance(item, ast.Starred) for item in items):
                return each(map(self.any_kind, items))
            case ast.ListComp(elt=item) | ast.GeneratorExp(elt=item):
                return many(self.any_kind(item))
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                kind = join([self.any_kind(left), self.any_kind(right)])
                return kind if isinstance(kind, Many) or kind == "nothing" else "obj"
            case ast.IfExp(body=yes, orelse=no):
                return join([self.any_kind(yes), self.any_kind(no)])
        return "obj"

    def _put(self, node: ast.expr) -> Kind:
        """What an element of a list display puts into the list."""
        return item_of(self.any_kind(node.value)) if isinstance(node, ast.Starred) else self.any_kind(node)

    def _of_builtin(self, name: str, node: ast.Call) -> Kind:
        """What a call of a builtin function gives."""
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            return "obj"
        items = [item_of(self.any_kind(argument)) for argument in node.args]
        match name, items:
            case "list" | "tuple" | "reversed" | "sorted", [item]:
                return many(item) if isinstance(self.any_kind(node.args[0]), Many | Each) else item
            case "enumerate", [item, *_]:
                return many(each(["obj", item]))
            case "zip", [_, *_]:
                return many(each(items))
            case "max" | "min", [item] if all(keyword.arg == "key" for keyword in node.keywords):
                return item
        return "obj"

    def mentions(self, node: ast.AST) -> bool:
        """Whether a name that holds states occurs anywhere below the node."""
        return any(isinstance(n, ast.Name) and n.id in self.kinds for n in walk(node))


def _of_method(method: str, kind: Kind) -> Kind:
    """What calling a method on something of a kind gives."""
    match method, kind:
        case "copy" | "fork" | "pop", "nothing":
            return "nothing"
        case "copy", "state" | Many():
            return kind
        case "fork", "state":
            return STATES
        case "pop", Many(item):
            return item
    return "obj"


def _of_subscript(kind: Kind, index: ast.expr) -> Kind:
    match index:
        case ast.Slice():
            return many(item_of(kind)) if isinstance(kind, Many | Each) else item_of(kind)
        case ast.Constant(value=int(number)) | ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(number))):
            return part_of(kind, number if isinstance(index, ast.Constant) else -number)
    return item_of(kind)


def analyse(source: Source, state_params: set[str], shadowed: set[str], ignored: frozenset[int] = frozenset()) -> Scope:
    """The scope of a function whose parameters in `state_params` are states. shadowed: see Scope.

    ignored: identities of expressions; that names are bound to them does not count.
    """
    tree = source.tree
    declared = [node for node in own_nodes(tree) if isinstance(node, ast.Global | ast.Nonlocal)]
    outer = {name for node in declared for name in node.names}
    bound = (_parameters(tree) | set(stored_names(*tree.body))) - outer
    scope = Scope(bound, _boxed(tree, bound), shadowed=shadowed, outer=outer)
    _settle(scope, tree, state_params, ignored)
    while (unstable := _unstable(scope, tree)) - scope.unstable:
        scope.unstable |= unstable
        _settle(scope, tree, state_params, ignored)
    scope.joins = _may_join(scope, tree)
    return scope


def _settle(scope: Scope, tree: Definition, state_params: set[str], ignored: frozenset[int]) -> None:
    """Infer what the names are, given those that are known to be unstable."""
    assigned: list[tuple[str, ast.expr | Kind]]
    assigned = [(name, "obj") for name in _parameters(tree) - state_params | scope.unstable | scope.outer]
    assigned += [(name, "state") for name in state_params]
    assigned += [(name, value) for name, value in bindings(tree) if id(value) not in ignored]
    assigned += [(name, put) for name, put in _put_into_lists(tree) if name in scope.locals]
    # Kinds feed each other (a = s.fork(2); b = a[0]) and only ever grow: go on until nothing changes.
    scope.kinds = dict.fromkeys((name for name, _ in assigned), "nothing")
    changed = True
    while changed:
        changed = False
        for name, value in assigned:
            kind = join([scope.kinds[name], scope.any_kind(value) if isinstance(value, ast.expr) else value])
            changed |= kind != scope.kinds[name]
            scope.kinds[name] = kind
    scope.kinds = {name: kind for name, kind in scope.kinds.items() if holds_state(kind)}


_HARMLESS_CALLS = {"zip", "enumerate", "len", "list", "tuple", "reversed"}
_READING_CALLS = _HARMLESS_CALLS | {"max", "min", "sorted", "any", "all", "sum"}
LOOKED_INTO = frozenset(_READING_CALLS)


def _unstable(scope: Scope, tree: Definition) -> set[str]:
    """Names of lists with states that may not stay such: the lists are used for more than looking at their items and
    what `_put_into_lists` knows.
    """
    nodes = own_nodes(tree)
    groups = _groups(tree)
    lists = {name for name, kind in scope.kinds.items() if isinstance(kind, Many) and name not in groups}
    appended = {id(node.target) for node in nodes if isinstance(node, ast.AugAssign)}
    known = _known_uses(nodes)
    used = {
        child.id
        for node in nodes
        for child in ast.iter_child_nodes(node)
        if isinstance(child, ast.Name)
        and child.id in lists
        and id(child) not in known
        and not _only_looks(scope, node, child, appended)
    }
    return used | (lists & scope.boxed)


_PUTTING_METHODS = {"append": 1, "extend": 1, "insert": 2}
_OTHER_METHODS = {"pop", "remove", "clear", "sort", "reverse", "index", "count", "copy"}


def _known_uses(nodes: Sequence[ast.AST]) -> set[int]:
    """Identities of the Name nodes on which a method of lists is called, in a way that is known to keep the kind, and
    of those that are returned.
    """
    known = set()
    for node in nodes:
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name() as name, attr=method), args=args):
                if method in _OTHER_METHODS or _is_putting(method, args):
                    known.add(id(name))
            case ast.Return(value=ast.expr() as value):
                known |= {id(name) for name in displayed(value)}
    return known


def _is_putting(method: str, args: list[ast.expr]) -> bool:
    return _PUTTING_METHODS.get(method) == len(args) and not any(isinstance(each, ast.Starred) for each in args)


def _put_into_lists(tree: Definition) -> Iterator[tuple[str, ast.expr]]:
    """What is put into a list, or the other name of one, by the name of the list: as a list of such."""
    groups = _groups(tree)
    for node in own_nodes(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method), args=args) if _is_putting(
                method, args
            ):
                yield name, ast.List([ast.Starred(args[0]) if method == "extend" else args[-1]])
            case ast.Assign(targets=targets, value=ast.Name(id=name)):
                yield from ((name, _SameList(target)) for target in targets if isinstance(target, ast.Name))
            case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value) if name not in groups:
                yield name, _Added(target, value if isinstance(op, ast.Add) else ast.Constant(None))


def _groups(tree: Definition) -> set[str]:
    """Names that are only assigned forks."""
    return {name for name, values in _by_name(tree).items() if all(map(_is_fork, values))}


def _by_name(tree: Definition) -> dict[str, list[ast.expr | Kind]]:
    found: dict[str, list[ast.expr | Kind]] = {}
    for name, value in bindings(tree):
        found.setdefault(name, []).append(value)
    return found


def _is_fork(value: ast.expr | Kind) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "fork"


def _only_looks(scope: Scope, parent: ast.AST, name: ast.Name, appended: set[int]) -> bool:
    """Whether this use of a list leaves it, and all who may change it, as they are."""
    if isinstance(name.ctx, ast.Store):
        return True
    match parent:
        case ast.Subscript(ctx=ast.Load()) | ast.For() | ast.comprehension() | ast.Expr() | ast.Return():
            return True
        case ast.While() | ast.If() | ast.Assert() | ast.UnaryOp() | ast.Starred():
            return True
        case ast.Subscript():
            return id(parent) in appended
        case ast.Call(func=ast.Name(id=function)):
            return function in _READING_CALLS and scope.is_builtin(function)
        case ast.Compare(ops=ops):
            return all(isinstance(op, ast.In | ast.NotIn | ast.Is | ast.IsNot) for op in ops)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return all(isinstance(scope.any_kind(side), Many) for side in (left, right))
        case ast.Assign(targets=targets):
            return all(_is_list(scope, target) for target in targets)
    return False


def _is_list(scope: Scope, target: ast.expr) -> bool:
    """Whether a target of an assignment is a list of its own, or unpacks one."""
    return isinstance(target, ast.Tuple | ast.List) or isinstance(scope.any_kind(target), Many)


def _may_join(scope: Scope, tree: Definition) -> bool:
    """Whether a list of states is used for more than iterating, indexing, counting and appending to it."""
    nodes = own_nodes(tree)
    known = _known_uses(nodes)
    if any(scope.kinds.get(name) == STATES for name in scope.boxed):
        return True
    return any(
        isinstance(child, ast.expr)
        and scope.kind(child) == STATES
        and id(child) not in known
        and not _harmless(scope, node, child)
        for node in nodes
        for child in ast.iter_child_nodes(node)
    )


def _harmless(scope: Scope, parent: ast.AST, child: ast.expr) -> bool:
    match parent:
        case ast.For() | ast.comprehension() | ast.Subscript() | ast.AugAssign() | ast.Expr() | ast.While() | ast.If():
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in _HARMLESS_CALLS and scope.is_builtin(name)
        case ast.Assign(targets=targets):
            return all(isinstance(t, ast.Tuple | ast.List) or scope.kind(t) == STATES for t in targets)
    return False


class Derived(ast.expr):
    """An expression that stands for something of another: what a target is bound to, as far as kinds go."""

    def __init__(self, of: ast.expr) -> None:
        super().__init__()
        self.of = of

    def kind(self, scope: Scope) -> Kind:
        """Its kind."""
        raise NotImplementedError


class _Item(Derived):
    """An element of an iterable."""

    def kind(self, scope: Scope) -> Kind:
        return item_of(scope.any_kind(self.of))


class _Part(Derived):
    """What one of several unpacked names is bound to."""

    def __init__(self, of: ast.expr, index: int, num_parts: int) -> None:
        super().__init__(of)
        self._index, self._num_parts = index, num_parts

    def kind(self, scope: Scope) -> Kind:
        return part_of(scope.any_kind(self.of), self._index, self._num_parts)


class _Added(Derived):
    """A list that is added to another, or to a tuple; nothing if it is added to neither."""

    def __init__(self, to: ast.expr, of: ast.expr) -> None:
        super().__init__(of)
        self._to = to

    def kind(self, scope: Scope) -> Kind:
        is_list = isinstance(scope.any_kind(self._to), Many | Each)
        return many(item_of(scope.any_kind(self.of))) if is_list else "nothing"


class _SameList(Derived):
    """The list that another name holds, which either may change; nothing if that is no list."""

    def kind(self, scope: Scope) -> Kind:
        kind = scope.any_kind(self.of)
        return kind if isinstance(kind, Many) else "nothing"


def _parameters(tree: Definition) -> set[str]:
    arguments = tree.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {argument.arg for argument in named if argument is not None}


def bindings(tree: ast.AST) -> Iterator[tuple[str, ast.expr | Kind]]:
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
                yield from _targets(target, _Item(items))
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                for generator in node.generators:
                    yield from _targets(generator.target, _Item(generator.iter))
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
        case ((ast.Tuple(elts=names) | ast.List(elts=names)), _) if any(isinstance(n, ast.Starred) for n in names):
            yield from ((n, "obj") for n in stored_names(target))
        case (ast.Tuple(elts=names) | ast.List(elts=names), ast.Tuple(elts=values) | ast.List(elts=values)) if len(
            names
        ) == len(values) and not any(isinstance(n, ast.Starred) for n in values):
            for each_name, item in zip(names, values, strict=True):
                yield from _targets(each_name, item)
        case ((ast.Tuple(elts=names) | ast.List(elts=names)), _):
            for index, each_name in enumerate(names):
                yield from _targets(each_name, _Part(value, index, len(names)))
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
    walked = (child for node in nodes for child in walk(node))
    return sum((isinstance(child, ast.Name) and child.id == name) or _bound_by(child) == name for child in walked)


def _scope_nodes(node: ast.AST) -> list[ast.AST]:
    """The node and what lies below it in the same scope."""
    return [node] if isinstance(node, _FUNCTIONS) else [node, *own_nodes(node)]


def _comprehension_names(node: ast.AST) -> set[int]:
    """Identities of the Name nodes that comprehensions bind in scopes of their own."""
    return {
        id(name) for child in _scope_nodes(node) if isinstance(child, ast.comprehension) for name in walk(child.target)
    }


def _boxed(tree: Definition, bound: set[str]) -> set[str]:
    """Local names that a nested function, class or free-standing generator expression refers to."""
    boxed: set[str] = set()
    consumed = {id(a) for n in own_nodes(tree) if isinstance(n, ast.Call) for a in n.args}
    for node in own_nodes(tree):
        if isinstance(node, _FUNCTIONS) or (isinstance(node, ast.GeneratorExp) and id(node) not in consumed):
            boxed |= {n.id for n in walk(node) if isinstance(n, ast.Name)} - _inner_names(node)
    return boxed & bound


def _inner_names(node: ast.AST) -> set[str]:
    """Names that the nested scope binds itself, unless it declares them nonlocal."""
    if isinstance(node, ast.Lambda):
        return {a.arg for a in walk(node.args) if isinstance(a, ast.arg)}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        shared = {n for child in walk(node) if isinstance(child, ast.Nonlocal) for n in child.names}
        return (_parameters(node) | {name for name, _ in bindings(node)}) - shared
    if isinstance(node, ast.GeneratorExp):
        return {n.id for g in node.generators for n in walk(g.target) if isinstance(n, ast.Name)}
    return set()
