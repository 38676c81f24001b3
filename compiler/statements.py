"""Statements -> ops. Statements without a state are host code; `if`, `for`, `while` and `return` become regions."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Sequence
from typing import Any

from ..ir.core import Region, Value
from ..ir.types import OBJ
from .appends import lower_append
from .asyncs import lower_async_with
from .branching import choose
from .expressions import bind_target, is_lazy, lift, lower_expression, note_calls, state_cell
from .leaving import Loop, end_region, leave, leave_if
from .lowering import Lowering
from .matches import lower_match
from .source import own_nodes
from .tries import lower_try
from .withs import can_lower, lower_with


def lower_block(low: Lowering, statements: Sequence[ast.stmt]) -> None:
    """Lower statements in order; stops behind one that never falls through."""
    for statement in statements:
        if low.builder.terminated:
            break
        if _is_host(low, statement):
            _hold(low, statement)
        else:
            low.flush()
            with low.at(statement):
                _LOWER.get(type(statement), _other)(low, statement)
    if not low.builder.terminated:
        low.flush()


def _hold(low: Lowering, statement: ast.stmt) -> None:
    """Keep a host statement for the next py.block; one that starts elsewhere on a line begins a block of its own."""
    if isinstance(statement, ast.Pass | ast.Global | ast.Nonlocal) or _is_docstring(statement):
        return
    if low.pending:
        last = low.pending[-1]
        if not low.groups or last.end_lineno == statement.lineno or last.col_offset != statement.col_offset:
            low.flush()
    low.pending.append(statement)


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_host(low: Lowering, statement: ast.stmt) -> bool:
    """Whether a statement can be host code: it touches no state, does not leave its block, and need not be lazy."""
    if low.scope.mentions(statement) or _leaves(statement):
        return False
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if name not in low.boxes:
            return not is_lazy(value) and not low.resolver.calls_pure_tool(value)
    return True


def _leaves(statement: ast.stmt) -> set[str]:
    """How control may leave a statement other than at its end: a subset of return, break, continue."""
    found = {"return"} if any(isinstance(n, ast.Return) for n in [statement, *own_nodes(statement)]) else set()
    return found | _loop_exits(statement)


def _loop_exits(node: ast.AST) -> set[str]:
    """The break and continue statements below `node` that belong to a loop around it."""
    if isinstance(node, ast.Break | ast.Continue):
        return {"break" if isinstance(node, ast.Break) else "continue"}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
        return set()
    inner = node.orelse if isinstance(node, ast.For | ast.While | ast.AsyncFor) else list(ast.iter_child_nodes(node))
    return set().union(*map(_loop_exits, inner))


# Simple statements.


def _assign(low: Lowering, node: ast.Assign) -> None:
    first = node.targets[0]
    if len(node.targets) == 1 and isinstance(first, ast.Name):
        return bind_target(low, first, lower_expression(low, node.value))
    if len(node.targets) == 1 and _is_variable(low, first):
        assert isinstance(first, ast.Subscript) and isinstance(first.slice, ast.Constant)
        value = lower_expression(low, node.value)
        return _bind_variable(low, state_cell(low, first.value), str(first.slice.value), value)
    return _other(low, node)


def _is_variable(low: Lowering, target: ast.expr) -> bool:
    """Whether an assignment target is `state["name"]`."""
    match target:
        case ast.Subscript(value=base, slice=ast.Constant(value=str())):
            return low.scope.kind(base) == "state"
    return False


def _bind_variable(low: Lowering, cell: Value, name: str, value: Value) -> None:
    prompt = low.builder.value("cell.load", cell)
    low.builder.op("cell.store", [cell, low.builder.value("prompt.bind", prompt, value, name=name)])


def _annotated(low: Lowering, node: ast.AnnAssign) -> None:
    if node.value is not None and isinstance(node.target, ast.Name):
        return bind_target(low, node.target, lower_expression(low, node.value))
    return _other(low, node)


def _augmented(low: Lowering, node: ast.AugAssign) -> None:
    if isinstance(node.op, ast.Add) and low.scope.kind(_loaded(node.target)) == "state":
        return lower_append(low, state_cell(low, _loaded(node.target)), node.value)
    return _other(low, node)


def _loaded(target: ast.expr) -> ast.expr:
    """A target as an expression that reads it."""
    target = copy.copy(target)
    target.ctx = ast.Load()  # type: ignore[attr-defined]
    return target


def _expression(low: Lowering, node: ast.Expr) -> None:
    match node.value:
        case ast.Call(
            func=ast.Attribute(value=base, attr="set_var"), args=[ast.Constant(value=str(name)), value], keywords=[]
        ) if low.scope.kind(base) == "state":
            cell = state_cell(low, base)
            _bind_variable(low, cell, name, lower_expression(low, value))
        case ast.Call(func=ast.Attribute(value=base, attr=method), args=[], keywords=[]) if (
            method in _ROLE_MARKS and low.scope.kind(base) == "state"
        ):
            _mark(low, state_cell(low, base), *_ROLE_MARKS[method])
        case value:
            lower_expression(low, value)


_ROLE_MARKS = {f"{role}_{mark}": (role, mark) for role in ("system", "user", "assistant") for mark in ("begin", "end")}


def _mark(low: Lowering, cell: Value, role: str, mark: str) -> None:
    prompt = low.builder.value("cell.load", cell)
    low.builder.op("cell.store", [cell, low.builder.value("prompt.role", prompt, role=role, mark=mark)])


def _return(low: Lowering, node: ast.Return) -> None:
    value = lower_expression(low, node.value) if node.value else low.builder.value("py.const", value=None)
    leave(low, "return", value)


def _break(low: Lowering, node: ast.stmt) -> None:
    leave(low, "break")


def _continue(low: Lowering, node: ast.stmt) -> None:
    leave(low, "continue")


# Control flow.


def _if(low: Lowering, node: ast.If) -> None:
    """What only decides about host code is host code itself, so that it can be put off. (An `elif` is no statement.)"""
    inside = [*node.body, *node.orelse]
    if any(low.scope.mentions(each) or _leaves(each) or low.resolver.calls_pure_tool(each) for each in inside):
        return _branch(low, node)
    return _simple(low, node) if low.source.keeps_lines(node, node.test) else _branch(low, node)


def _branch(low: Lowering, node: ast.If) -> None:
    condition = lower_expression(low, node.test)

    def otherwise() -> None:
        if _is_elif(node):
            with low.at(node.orelse[0]):
                _branch(low, node.orelse[0])  # type: ignore[arg-type]
        else:
            lower_block(low, node.orelse)

    names = low.assigned([*node.body, *node.orelse])
    choose(low, condition, lambda: lower_block(low, node.body), otherwise, names)


def _is_elif(node: ast.If) -> bool:
    """Whether what follows is an `elif`: its text is no statement, so that it cannot become host code as a whole."""
    match node.orelse:
        case [ast.If(col_offset=column)]:
            return column == node.col_offset
    return False


def _for(low: Lowering, node: ast.For) -> None:
    iterable = lower_expression(low, node.iter)
    loop = _carry(low, node, [node.target, *node.body])
    initial = [low.lookup(name) for name in loop.names]
    item = Value(OBJ, "item")
    region = Region([item, *(Value(OBJ, name) for name in loop.names)])
    with _loop(low, region, loop, region.args[1:]):
        bind_target(low, node.target, item)
        lower_block(low, node.body)
        if not low.builder.terminated:
            end_region(low, "flow.yield", loop.names)
    _close_loop(low, "flow.for", [iterable, *initial], loop, [region])
    _after_loop(low, loop, node.orelse)


def _while(low: Lowering, node: ast.While) -> None:
    loop = _carry(low, node, [node.test, *node.body])
    initial = [low.lookup(name) for name in loop.names]
    test = Region([Value(OBJ, name) for name in loop.names])
    body = Region([Value(OBJ, name) for name in loop.names])
    with _loop(low, test, loop, test.args):
        condition = lower_expression(low, node.test)
        low.builder.op("flow.condition", [condition, *(low.lookup(name) for name in loop.names)])
    with _loop(low, body, loop, body.args):
        lower_block(low, node.body)
        if not low.builder.terminated:
            end_region(low, "flow.yield", loop.names)
    _close_loop(low, "flow.while", initial, loop, [test, body])
    _after_loop(low, loop, node.orelse)


def _async_for(low: Lowering, node: ast.AsyncFor) -> None:
    item, more = low.temporary(), low.temporary()
    low.scope.locals |= {item, more}
    with low.at(node.iter):
        source = lower_expression(low, node.iter)
        items = low.expression_op("(__item async for __item in __source)", [], {"__source": source})
    low.env[item] = low.builder.value("py.const", value=None)
    loop = _carry(low, node, [node.target, *node.body])
    loop = Loop([*loop.names, item], loop.finished)
    initial = [low.lookup(name) for name in loop.names]
    test = Region([Value(OBJ, name) for name in loop.names])
    body = Region([Value(OBJ, name) for name in loop.names])
    code = f"{item} = await anext(__items, __items)\n{more} = {item} is not __items"
    with _loop(low, test, loop, test.args):
        with low.at(node.iter):
            low.block_op(code, ast.parse(code).body, {"__items": items})
        low.builder.op("flow.condition", [low.env[more], *(low.lookup(name) for name in loop.names)])
    with _loop(low, body, loop, body.args):
        bind_target(low, node.target, low.env[item])
        lower_block(low, node.body)
        if not low.builder.terminated:
            end_region(low, "flow.yield", loop.names)
    _close_loop(low, "flow.while", initial, loop, [test, body])
    del low.env[item]
    _after_loop(low, loop, node.orelse)


def _carry(low: Lowering, node: ast.For | ast.AsyncFor | ast.While, nodes: Sequence[ast.AST]) -> Loop:
    """The variables that a loop carries: those assigned in `nodes` and, if its `else` may be skipped, one for that."""
    names = low.assigned(nodes)
    if not node.orelse or not any("break" in _loop_exits(statement) for statement in node.body):
        return Loop(names)
    finished = low.temporary()
    low.env[finished] = low.builder.value("py.const", value=True)
    return Loop([*names, finished], finished)


def _after_loop(low: Lowering, loop: Loop, orelse: list[ast.stmt]) -> None:
    """The `else` of a loop, which a break skips."""
    if loop.finished is None:
        return lower_block(low, orelse)
    return choose(low, low.env.pop(loop.finished), lambda: lower_block(low, orelse), lambda: None, low.assigned(orelse))


class _loop:
    """Builds into a region of a loop, with the carried variables bound to the region's arguments."""

    def __init__(self, low: Lowering, region: Region, loop: Loop, args: list[Value]) -> None:
        self.low, self.loop, self.args = low, loop, args
        self.inside = low.region(region)

    def __enter__(self) -> None:
        unsure = [name for name in self.loop.names if not self.low.is_sure(name)]
        self.inside.__enter__()
        self.low.env.update(zip(self.loop.names, self.args, strict=True))
        self.low.unsure.update(self.low.env[name] for name in unsure)
        self.low.around.append(self.loop)

    def __exit__(self, *error: Any) -> None:
        self.low.around.pop()
        self.inside.__exit__(*error)


def _close_loop(low: Lowering, op: str, operands: list[Value], loop: Loop, regions: list[Region]) -> None:
    names = loop.names
    made = low.builder.op(op, operands, results=[OBJ] * len(names), hints=names, regions=regions)
    low.unsure.update(value for name, value in zip(names, made.results, strict=True) if not low.is_sure(name))
    low.env.update(zip(names, made.results, strict=True))


def _with(low: Lowering, node: ast.With) -> None:
    if not can_lower(low, node):
        return _eagerly(low, node, "`with` around a state")
    return lower_with(low, node.items, lambda: lower_block(low, node.body))


def _async_with(low: Lowering, node: ast.AsyncWith) -> None:
    if not low.scope.mentions(node):
        return _eagerly(low, node, "")  # nothing in it waits
    return lower_async_with(low, node, lambda: lower_block(low, node.body))


def _try(low: Lowering, node: ast.Try) -> None:
    if not low.scope.mentions(node):
        return _eagerly(low, node, "")  # nothing in it waits
    return lower_try(low, node, lambda body: lower_block(low, body))


def _match(low: Lowering, node: ast.Match) -> None:
    lower_match(low, node, lambda body: lower_block(low, body))


# What stays Python.


def _other(low: Lowering, node: ast.stmt) -> None:
    """A simple statement as host code; a compound one runs eagerly."""
    if hasattr(node, "body"):
        return _eagerly(low, node, f"`{_keyword(node)}` around a state")
    return _simple(low, node)


def _simple(low: Lowering, node: ast.stmt) -> None:
    """A statement as host code, with the reads of states lifted out of what it evaluates first."""
    temporaries: dict[str, Value] = {}
    lifted = copy.copy(node)
    for field in ("value", "test", "exc"):
        if isinstance(child := getattr(lifted, field, None), ast.expr) and _is_evaluated_first(low, node):
            setattr(lifted, field, lift(low, child, temporaries))
            break  # only what is evaluated first may be lifted
    note_calls(low, lifted)
    code = low.source.rewritten(lifted, temporaries) if temporaries else low.source.segment([node])
    low.block_op(code, [lifted], temporaries)
    return None


def _is_evaluated_first(low: Lowering, node: ast.stmt) -> bool:
    """Whether a statement evaluates its value before anything that may fail or be noticed."""
    if not isinstance(node, ast.AugAssign):
        return True
    return isinstance(node.target, ast.Name) and node.target.id not in low.boxes and low.is_sure(node.target.id)


def _keyword(node: ast.stmt) -> str:
    words = {ast.TryStar: "except*", ast.FunctionDef: "def", ast.AsyncFunctionDef: "async def", ast.ClassDef: "class"}
    return words.get(type(node), type(node).__name__.lower())


def _eagerly(low: Lowering, node: ast.stmt, reason: str) -> None:
    """Run a whole statement as Python, states and all, and pass on how it ended."""
    exits = _leaves(node)
    if low.scope.mentions(node):
        low.on_eager(node, reason)
    made = low.block_op(low.source.segment([node]), [node], {}, signals=bool(exits))
    if not exits:
        return
    signal, value = made.results[-2:]
    for exit_ in sorted(exits):
        leave_if(low, signal, exit_, value)


_LOWER: dict[type[ast.stmt], Callable[[Lowering, Any], None]] = {
    ast.Assign: _assign,
    ast.AnnAssign: _annotated,
    ast.AugAssign: _augmented,
    ast.Expr: _expression,
    ast.Return: _return,
    ast.Break: _break,
    ast.Continue: _continue,
    ast.If: _if,
    ast.For: _for,
    ast.AsyncFor: _async_for,
    ast.While: _while,
    ast.With: _with,
    ast.AsyncWith: _async_with,
    ast.Match: _match,
    ast.Try: _try,
}
