"""Expressions -> values: reads, forks, copies, helper calls and comprehensions become ops, the rest host code.

Evaluation order is Python's: when an op has to be lifted out of an expression, everything evaluated before it that
could be noticed is lifted too. What is evaluated only sometimes (`a and s["x"]`) is not lifted: there the host code
gets the state and reads it itself.
"""

from __future__ import annotations

import ast
import copy
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from ..ir.core import Region, Value
from ..ir.syntax import walk
from ..ir.types import OBJ
from .lowering import Lowering
from .resolve import Callee, is_direct, named_arguments
from .scope import stored_names

_Lift = Callable[[Lowering, Any], Value]


def lower_expression(low: Lowering, node: ast.expr) -> Value:
    """The value of an expression at this point of the program."""
    lift = lifting(low, node)
    if lift is not None:
        with low.at(node):
            return lift(low, node)
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return low.builder.value("py.const", value=value)
        case ast.Name(id=name) if name in low.boxes or (name in low.scope.locals and low.is_sure(name)):
            return low.read(name)
    return _host_expression(low, node)


def lifting(low: Lowering, node: ast.expr) -> _Lift | None:
    """The function that lowers this very node to ops, or None when it is host code."""
    match node:
        case ast.Subscript(value=base, slice=ast.Constant(value=str()), ctx=ast.Load()) if _is_state(low, base):
            return _get
        case ast.Call(func=ast.Attribute(value=base, attr=method), args=args, keywords=[]) if _STATE_METHODS.get(
            method, (None, -1)
        )[1] == len(args) and _is_state(low, base):
            return _STATE_METHODS[method][0]
        case ast.Call() if _helper_call(low, node) is not None:
            return _call
        case ast.Call() if _is_pure_call(low, node):
            return _pure_call
        case ast.Await(value=ast.Call() as call) if _helper_call(low, call, is_awaited=True) is not None:
            return _awaited_call
        case ast.Call() if _is_dynamic_call(low, node):
            return _invoke
        case ast.ListComp() if _touches(low, node) and _can_loop(node):
            return _list_comprehension
        case ast.DictComp() if _touches(low, node) and _can_loop(node):
            return _dict_comprehension
        case ast.Call(args=[ast.GeneratorExp() as made]) if _draws_all_first(low, node):
            return _drawn if _touches(low, made) and _can_loop(made) else None
        case ast.IfExp() if any(_holds_lift(low, branch) for branch in (node.body, node.orelse)):
            return None if _binds(node.body) or _binds(node.orelse) else _conditional
    return None


def _touches(low: Lowering, node: ast.expr) -> bool:
    """Whether anything below the node may become an op: what has to do with states, and calls of pure tools."""
    return low.scope.mentions(node) or low.resolver.calls_pure_tool(node)


def _binds(node: ast.expr) -> bool:
    """Whether the expression assigns variables: what a region of its own assigns would be lost."""
    return any(isinstance(n, ast.NamedExpr) for n in walk(node))


def _is_state(low: Lowering, node: ast.expr) -> bool:
    return low.scope.kind(node) == "state"


def state_cell(low: Lowering, node: ast.expr) -> Value:
    """The cell of an expression whose kind is "state"."""
    value = lower_expression(low, node)
    return value if value.type.kind == "cell" else low.builder.value("cell.of", value)


def load(low: Lowering, node: ast.expr) -> Value:
    """The prompt that a state expression holds now."""
    return low.builder.value("cell.load", state_cell(low, node))


def _get(low: Lowering, node: ast.Subscript) -> Value:
    name = node.slice.value  # type: ignore[attr-defined]
    return low.builder.value("prompt.get", load(low, node.value), name=name, hint=name if name.isidentifier() else "")


def _copy(low: Lowering, node: ast.Call) -> Value:
    return low.builder.value("cell.new", load(low, node.func.value))  # type: ignore[attr-defined]


def _fork(low: Lowering, node: ast.Call) -> Value:
    cell = state_cell(low, node.func.value)  # type: ignore[attr-defined]
    count = lower_expression(low, node.args[0])
    return low.builder.value("prompt.fork", cell, count, hint="forks", joins=low.scope.joins or None)


def _text(low: Lowering, node: ast.Call) -> Value:
    return low.builder.value("prompt.text", load(low, node.func.value))  # type: ignore[attr-defined]


def _messages(low: Lowering, node: ast.Call) -> Value:
    return low.builder.value("prompt.messages", load(low, node.func.value))  # type: ignore[attr-defined]


# Methods of a state that are ops, with the number of arguments they must have.
_STATE_METHODS: dict[str, tuple[_Lift, int]] = {
    "copy": (_copy, 0),
    "fork": (_fork, 1),
    "text": (_text, 0),
    "messages": (_messages, 0),
}


def _helper_call(low: Lowering, node: ast.Call, *, is_awaited: bool = False) -> tuple[Callee, frozenset[str]] | None:
    """The helper or program that a call with states runs, and which of its parameters are states."""
    arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
    if not any(_is_state(low, argument) for argument in arguments):
        return None
    if _has_stars(node):
        return None
    callee = low.resolver.helper(node, is_awaited=is_awaited)
    if callee is None:
        return None
    named = named_arguments(callee.function, _positional(callee, node), node.keywords)
    if named is None:
        return None
    return callee, frozenset(name for name, value in named.items() if _is_state(low, value))


def _has_stars(node: ast.Call) -> bool:
    return any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords)


def _positional(callee: Callee, node: ast.Call) -> list[ast.expr]:
    """The positional arguments of a call: of a method, what it is called on comes first."""
    return list(node.args) if callee.method is None else [node.func.value, *node.args]  # type: ignore[attr-defined]


def _awaited_call(low: Lowering, node: ast.Await) -> Value:
    assert isinstance(node.value, ast.Call)
    return _call(low, node.value, is_awaited=True)


def _call(low: Lowering, node: ast.Call, *, is_awaited: bool = False) -> Value:
    found = _helper_call(low, node, is_awaited=is_awaited)
    assert found is not None
    callee, states = found
    arguments = [*_positional(callee, node), *(keyword.value for keyword in node.keywords)]
    operands = [state_cell(low, a) if _is_state(low, a) else lower_expression(low, a) for a in arguments]
    keywords = [keyword.arg for keyword in node.keywords]
    return low.builder.value(
        "flow.call",
        *operands,
        callee=low.request(callee, states),
        keywords=keywords or None,
        method=callee.method,
        direct=is_direct(callee, len(operands) - len(keywords), keywords) or None,
    )


# Methods of containers, which are given states to keep: nothing is gained by looking at them when they are called.
_KEEPING = {name for kind in (list, dict, set, deque, str) for name in dir(kind)}


def _is_dynamic_call(low: Lowering, node: ast.Call) -> bool:
    """Whether a state is given to a value that only the run knows, such as an object's method: it may be a program."""
    match node.func:
        case ast.Name(id=name):
            is_dynamic = name in low.scope.locals
        case ast.Attribute(value=base, attr=method):
            is_dynamic = method not in _KEEPING and low.scope.kind(base) == "obj"
        case other:
            is_dynamic = isinstance(other, ast.Subscript)
    if not is_dynamic or _has_stars(node):
        return False
    return any(_is_state(low, argument) for argument in _arguments(node)) and low.resolver.find(node.func) is None


def _invoke(low: Lowering, node: ast.Call) -> Value:
    callee = lower_expression(low, node.func)
    operands = [state_cell(low, a) if _is_state(low, a) else lower_expression(low, a) for a in _arguments(node)]
    keywords = [keyword.arg for keyword in node.keywords]
    return low.builder.value("flow.invoke", callee, *operands, keywords=keywords or None)


def _is_pure_call(low: Lowering, node: ast.Call) -> bool:
    """Whether a call runs a pure tool, with arguments that can be evaluated one after the other before it."""
    plain = not any(isinstance(a, ast.Starred) for a in node.args) and all(k.arg is not None for k in node.keywords)
    return plain and low.resolver.pure_tool(node) is not None


def _pure_call(low: Lowering, node: ast.Call) -> Value:
    """The call of a pure tool: it goes on while the program does, as far as its value is not needed."""
    temporaries: dict[str, Value] = {}
    made = copy.copy(node)
    made.args = [_argument(low, each, temporaries) for each in node.args]
    made.keywords = [
        ast.copy_location(ast.keyword(each.arg, _argument(low, each.value, temporaries)), each)
        for each in node.keywords
    ]
    kind = low.resolver.pure_tool(node).value_kind
    return low.expression_op(ast.unparse(made), [made], temporaries, pure=kind)


def _argument(low: Lowering, node: ast.expr, temporaries: dict[str, Value]) -> ast.expr:
    return node if isinstance(node, ast.Constant) else _temporary(low, node, temporaries)


def _can_loop(node: ast.ListComp | ast.DictComp | ast.GeneratorExp) -> bool:
    inner = list(walk(node))
    return not any(isinstance(n, ast.NamedExpr | ast.Lambda) for n in inner) and not any(
        isinstance(n, ast.comprehension) and n.is_async for n in inner
    )


def _list_comprehension(low: Lowering, node: ast.ListComp) -> Value:
    items = low.builder.value("py.list", hint="items")
    iterable = lower_expression(low, node.generators[0].iter)  # in the scope around
    with low.inner_names({name for g in node.generators for name in stored_names(g.target)}):
        _generate(low, node.generators, iterable, lambda: _push(low, items, node.elt))
    return low.builder.value("py.collect", items)


def _dict_comprehension(low: Lowering, node: ast.DictComp) -> Value:
    keys, values = (low.builder.value("py.list", hint=hint) for hint in ("keys", "values"))

    def push() -> None:
        key, value = lower_expression(low, node.key), lower_expression(low, node.value)
        with low.at(node.key):  # in a dict of its own, a key that cannot be one fails here, as it does in Python
            low.builder.op("py.push", [keys, low.expression_op("{__key: None}", [], {"__key": key})])
        low.builder.op("py.push", [values, value])

    iterable = lower_expression(low, node.generators[0].iter)
    with low.inner_names({name for g in node.generators for name in stored_names(g.target)}):
        _generate(low, node.generators, iterable, push)
    return low.builder.value("py.dict", keys, values)


def _draws_all_first(low: Lowering, node: ast.Call) -> bool:
    """Whether a call draws everything from the generator that it is given before it looks at any of it."""
    match node.func:
        case ast.Name(id="list" | "tuple" | "sorted" as name):
            return low.scope.is_builtin(name)
        case ast.Attribute(value=ast.Constant(value=str()), attr="join"):
            return True
    return False


def _drawn(low: Lowering, node: ast.Call) -> Value:
    """Such a call, with a list comprehension in place of the generator."""
    node = copy.copy(node)
    made = node.args[0]
    assert isinstance(made, ast.GeneratorExp)
    node.args = [ast.copy_location(ast.ListComp(made.elt, made.generators), made)]
    return _host_expression(low, node, is_verbatim=False)


def _push(low: Lowering, items: Value, element: ast.expr) -> None:
    low.builder.op("py.push", [items, lower_expression(low, element)])


def _generate(
    low: Lowering, generators: list[ast.comprehension], iterable: Value, innermost: Callable[[], None]
) -> None:
    first, rest = generators[0], generators[1:]
    item = Value(OBJ, "item")
    body = Region([item])
    low.builder.op("flow.for", [iterable], results=(), regions=[body])

    def inside() -> None:
        if rest:
            _generate(low, rest, lower_expression(low, rest[0].iter), innermost)
        else:
            innermost()

    with low.region(body):
        bind_target(low, first.target, item)
        _filter(low, first.ifs, inside)
        low.builder.op("flow.yield")


def _filter(low: Lowering, conditions: list[ast.expr], inside: Callable[[], None]) -> None:
    if not conditions:
        return inside()
    condition = lower_expression(low, conditions[0])
    yes, no = Region(), Region()
    low.builder.op("flow.if", [condition], results=(), regions=[yes, no])
    with low.region(yes):
        _filter(low, conditions[1:], inside)
        low.builder.op("flow.yield")
    with low.region(no):
        low.builder.op("flow.yield")
    return None


def bind_target(low: Lowering, target: ast.expr, value: Value) -> None:
    """Assign a value to a loop or assignment target."""
    if isinstance(target, ast.Name):
        return low.assign(target.id, value)
    name = low.own_name("__value")
    assignment = ast.Assign([target], ast.Name(name, ast.Load()))
    low.block_op(f"{ast.unparse(target)} = {name}", [assignment], {name: value})
    return None


def _conditional(low: Lowering, node: ast.IfExp) -> Value:
    condition = lower_expression(low, node.test)
    branches = [Region(), Region()]
    made = low.builder.op("flow.if", [condition], results=(OBJ,), regions=branches)
    for region, branch in zip(branches, (node.body, node.orelse), strict=True):
        with low.region(region):
            low.builder.op("flow.yield", [lower_expression(low, branch)])
    return made.result


# Host expressions, with what must be ops lifted out of them.


def _host_expression(low: Lowering, node: ast.expr, *, is_verbatim: bool = True) -> Value:
    temporaries: dict[str, Value] = {}
    lifted = lift(low, node, temporaries)
    note_calls(low, lifted)
    lazy = is_lazy(lifted) and _may_wait(low, lifted, temporaries)
    if lazy:
        lifted = _with_globals_read(low, lifted, temporaries)
    with low.at(node):
        if is_verbatim and not temporaries:
            code = low.source.segment([node])
        else:
            code = low.source.rewritten(lifted, temporaries)
        if _binds(lifted):
            return _with_walrus(low, lifted, code, temporaries)
        return low.expression_op(code, [lifted], temporaries, lazy=lazy)


def note_calls(low: Lowering, node: ast.AST) -> None:
    """Say which functions host code gives states to, and why they run as Python."""
    for call in walk(node):
        if isinstance(call, ast.Call) and any(low.scope.kind(each) != "obj" for each in _arguments(call)):
            reason = low.resolver.why_python(call)
            if reason is not None:
                low.on_eager(call, reason)


def _arguments(node: ast.Call) -> list[ast.expr]:
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    return [argument.value if isinstance(argument, ast.Starred) else argument for argument in given]


def _may_wait(low: Lowering, node: ast.expr, temporaries: dict[str, Value]) -> bool:
    """Whether names from outside can be read before the others: one without a value would fail before its turn."""
    names, outside = _names(low, node, temporaries)
    return names == outside or all(map(low.resolver.is_defined, outside))


def _with_globals_read(low: Lowering, node: ast.expr, temporaries: dict[str, Value]) -> ast.expr:
    """An expression that may wait for its inputs, with what others may rebind meanwhile read now."""
    names, outside = _names(low, node, temporaries)
    loose = {name for name in outside if not low.resolver.is_steady(name)}
    if not loose or names == outside:
        return node
    stand_ins = {}
    for name in sorted(loose):
        place = next(n for n in walk(node) if isinstance(n, ast.Name) and n.id == name)
        stand_ins[name] = _temporary(low, place, temporaries)
    return _Replacing(stand_ins).visit(copy.deepcopy(node))  # type: ignore[no-any-return]


def _names(low: Lowering, node: ast.expr, temporaries: dict[str, Value]) -> tuple[set[str], set[str]]:
    """The names in an expression, and those of them that come from outside of the function."""
    names = {n.id for n in walk(node) if isinstance(n, ast.Name)}
    return names, names.difference(low.scope.locals, temporaries)


class _Replacing(ast.NodeTransformer):
    """Puts other expressions where some names stand."""

    def __init__(self, others: dict[str, ast.expr]) -> None:
        self._others = others

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.copy_location(copy.copy(self._others.get(node.id, node)), node)


def _with_walrus(low: Lowering, node: ast.expr, code: str, temporaries: dict[str, Value]) -> Value:
    """An expression that also assigns variables: a block whose outputs hold its value too."""
    name = low.temporary()
    low.scope.locals.add(name)
    target = ast.Assign([ast.Name(name, ast.Store())], node)
    low.block_op(f"{name} = ({code.strip()})", [target], temporaries)
    return low.env.pop(name)


def lift(low: Lowering, node: ast.expr, temporaries: dict[str, Value]) -> ast.expr:
    """The expression with what must be an op replaced by temporaries, which are evaluated here and now, in order."""
    if not _holds_lift(low, node):
        return node
    if lifting(low, node) is not None:
        return _temporary(low, node, temporaries)
    node = copy.copy(node)
    for put, child, is_whole in _plan(low, list(_children(node))):
        put(_temporary(low, child, temporaries) if is_whole else lift(low, child, temporaries))
    return node


def _plan(low: Lowering, children: list[_Slot]) -> list[tuple[Callable[[ast.expr], None], ast.expr, bool]]:
    """The subexpressions up to the last that something is lifted out of, and whether each is lifted as a whole."""
    held = [index for index, (_, child) in enumerate(children) if _holds_lift(low, child)]
    last = max(held, default=-1)
    plan = []
    rebound: set[str] | None = None
    for index in range(last, -1, -1):
        put, child = children[index]
        is_whole = index != last and may_be_noticed(low, child, rebound)
        if (is_whole or index in held) and not _is_quiet(child):
            rebound = (rebound or set()) | set(stored_names(child))
        plan.append((put, child, is_whole))
    return plan[::-1]


def _temporary(low: Lowering, node: ast.expr, temporaries: dict[str, Value]) -> ast.expr:
    """A name for the expression's value, which is evaluated now. A field of an f-string is formatted now, too."""
    name = low.temporary()
    value = ast.copy_location(ast.Name(name, ast.Load()), node)
    if isinstance(node, ast.FormattedValue):
        temporaries[name] = _host_expression(low, ast.copy_location(ast.JoinedStr([node]), node), is_verbatim=False)
        return ast.copy_location(ast.FormattedValue(value, -1, None), node)
    temporaries[name] = lower_expression(low, node)
    return value


def _is_quiet(node: ast.expr) -> bool:
    """Whether what is lifted out of the expression only reads states, copies and forks them: it may only fail."""
    return all(
        isinstance(n.func, ast.Attribute) and n.func.attr in _STATE_METHODS
        if isinstance(n, ast.Call)
        else not isinstance(n, ast.NamedExpr | ast.comprehension)
        for n in walk(node)
    )


def may_be_noticed(low: Lowering, node: ast.expr, rebound: set[str] | None) -> bool:
    """Whether it could be noticed that the expression is evaluated after what is lifted from behind it.

    rebound: None if that may only fail. Else it may change anything, such as a shared variable or a list, and of the
    plain variables these.
    """
    match node:
        case ast.Constant() | ast.Lambda():
            return False
        case ast.Name(id=name) if name in low.scope.locals:
            if name in low.boxes:
                return rebound is not None
            return name in (rebound or ()) or not low.is_sure(name)
        case ast.Name(id=name):
            return not low.resolver.is_defined(name) or (rebound is not None and not low.resolver.is_steady(name))
        case ast.FormattedValue(value=value, conversion=-1, format_spec=None) if rebound is None:
            return may_be_noticed(low, value, None)
        case ast.JoinedStr(values=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts):
            return any(may_be_noticed(low, part, rebound) for part in parts)
        case ast.BinOp(left=left, right=right) if is_lazy(node) and rebound is None:
            return any(may_be_noticed(low, part, None) for part in (left, right))
    return True


def _holds_lift(low: Lowering, node: ast.expr) -> bool:
    """Whether something that is evaluated every time the expression is must be lifted out of it."""
    if not _touches(low, node):
        return False
    return lifting(low, node) is not None or any(_holds_lift(low, child) for _, child in _children(node))


_Slot = tuple[Callable[[ast.expr], None], ast.expr]


def _children(node: ast.AST) -> Iterator[_Slot]:
    """The subexpressions that are always evaluated, in Python's order, each with a function that replaces it.

    Nodes that only group others (keywords, starred, slices, attributes, f-strings) are copied and looked through, so
    replacing changes the copy that hangs below `node`. Format specifications stay as they are.
    """
    match node:
        case ast.BoolOp():
            yield from _slots(node, "values", only_first=True)
        case ast.IfExp():
            yield from _slots(node, "test")
        case ast.Compare():
            yield from _slots(node, "left")
            yield from _slots(node, "comparators", only_first=True)
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            node.generators = [copy.copy(generator) for generator in node.generators]
            yield from _slots(node.generators[0], "iter")
        case ast.FormattedValue():
            yield from _slots(node, "value")
        case ast.Dict():
            node.keys, node.values = list(node.keys), list(node.values)
            for index in range(len(node.values)):
                if node.keys[index] is not None:
                    yield _slot(node.keys, index)
                yield _slot(node.values, index)
        case ast.Lambda() | ast.NamedExpr():
            return
        case _:
            for field in node._fields:
                if isinstance(getattr(node, field, None), ast.expr | ast.keyword | list):
                    yield from _slots(node, field)


_THROUGH = (ast.Attribute, ast.Starred, ast.keyword, ast.JoinedStr, ast.Slice)


def _slots(node: ast.AST, field: str, *, only_first: bool = False) -> Iterator[_Slot]:
    value = getattr(node, field)
    holder: Any = list(value) if isinstance(value, list) else [value]
    if isinstance(value, list):
        setattr(node, field, holder)
    for index in range(1 if only_first else len(holder)):
        child = holder[index]
        if isinstance(child, _THROUGH):
            holder[index] = child = copy.copy(child)
            if not isinstance(value, list):
                setattr(node, field, child)
            yield from _children(child)
        elif isinstance(child, ast.expr):
            yield _slot(holder, index) if isinstance(value, list) else (_setter(node, field), child)


def _slot(holder: list[Any], index: int) -> _Slot:
    def put(new: ast.expr) -> None:
        holder[index] = new

    return put, holder[index]


def _setter(node: ast.AST, field: str) -> Callable[[ast.expr], None]:
    return lambda new: setattr(node, field, new)


_LAZY_METHODS = {"strip", "lstrip", "rstrip", "lower", "upper", "title", "capitalize", "removeprefix", "removesuffix"}


def is_lazy(node: ast.expr) -> bool:
    """Whether the expression may wait for its inputs: it only formats, joins and trims texts."""
    match node:
        case ast.Name() | ast.Constant(value=str() | int()):
            return True
        case ast.JoinedStr(values=parts):
            return all(isinstance(part, ast.Constant) or _plain_field(part) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return is_lazy(left) and is_lazy(right)
        case ast.Call(func=ast.Attribute(value=base, attr=method), args=args, keywords=[]) if method in _LAZY_METHODS:
            return is_lazy(base) and all(isinstance(a, ast.Constant) and isinstance(a.value, str) for a in args)
    return False


def _plain_field(part: ast.expr) -> bool:
    return isinstance(part, ast.FormattedValue) and part.format_spec is None and is_lazy(part.value)
