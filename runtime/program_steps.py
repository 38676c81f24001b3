"""The steps of a program, for whoever goes through one step by step: what its user would call a step, found in the IR.

Those are appends, requests, forks, calls, code that may do more than compute, and returns; where a statement has none
of them, the first variable that it reads of a state. A statement's first step is before anything of it has happened.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import cast

from ..ir.core import Op, Value
from ..ir.debug_info import DebugInfo
from ..ir.span import Span
from ..ir.syntax import walk
from .host import HostOp
from .hostcode import parse
from .warming import outside

_READ, _TOOL, _PYTHON = "read", "tool", "python"
_KINDS = {
    "prompt.append": "append",
    "prompt.image": "image",
    "prompt.video": "video",
    "prompt.fork": "fork",
    "cell.new": "copy",
    "lm.gen": "gen",
    "lm.select": "select",
    "lm.score": "score",
    "py.call": _PYTHON,
    "flow.call": "call",
    "flow.invoke": "call",
    "flow.return": "return",
    "prompt.get": _READ,
    "prompt.text": _READ,
    "prompt.messages": _READ,
}
KINDS = tuple(dict.fromkeys([*_KINDS.values(), _TOOL]))
"""What kinds of steps there are."""

HostOf = Callable[[Op], HostOp]
"""Gives the linked host code of a py.expr or py.block."""


@dataclass(frozen=True, slots=True, eq=False)
class ProgramStep:
    """A step, as it stands in the IR.

    op: what it does. name: of the variable that it generates or reads, or of what it calls. statement: whose step it
    is; begins: whether it is the first one there. names: the local variables that are visible before it, as in
    DebugInfo. place: the value that holds the state, or the prompt, that it is about to use, if that is known.
    """

    op: Op
    kind: str
    name: str | None
    statement: Span | None
    begins: bool
    names: dict[str, tuple[Value, ...]]
    place: Value | None

    @property
    def label(self) -> str:
        """The kind, and the name if there is one."""
        return self.kind if self.name is None else f"{self.kind} {self.name}"


def find_steps(ops: Sequence[Op], info: DebugInfo, host_of: HostOf) -> Iterator[tuple[Op, ProgramStep]]:
    """The steps among the ops of a region, each with the op before which it is met."""
    for run in _statements(ops, info):
        found = [(index, kind) for index, op in enumerate(run) if (kind := _kind(op, info, host_of)) is not None]
        strong = [(index, kind) for index, kind in found if kind != _READ]
        start = 0
        for index, kind in strong or found[:1]:
            before, op = run[start : index + 1], run[index]
            name = _name(op, kind, host_of)
            names, place = info.names_at(run[start]), _place(op, before[:-1])
            yield run[start], ProgramStep(op, kind, name, info.statement_of(op), start == 0, names, place)
            start = index + 1


def _statements(ops: Sequence[Op], info: DebugInfo) -> Iterator[Sequence[Op]]:
    """The ops by statement; what holds regions ends a row, since they have steps of their own."""
    start = 0
    for index in range(1, len(ops) + 1):
        is_over = index == len(ops) or bool(ops[index - 1].regions)
        if is_over or info.statement_of(ops[index]) != info.statement_of(ops[start]):
            yield ops[start:index]
            start = index


def _kind(op: Op, info: DebugInfo, host_of: HostOf) -> str | None:
    """What kind of step an op is, if it is one."""
    if op.name == "flow.leave":
        return "return" if op.attrs["kind"] == "return" else None
    if op.name not in ("py.expr", "py.block"):
        return _KINDS.get(op.name)
    host = host_of(op)
    if host.is_pure or _called_tool(op, host) is not None:
        return _TOOL
    if host.awaits or _appends(op, info.states.get(op, frozenset())):
        return _PYTHON
    if not host.is_known and not _only_defines(op):
        return _PYTHON
    return _READ if op.attrs.get("reads") else None


# What is done with groups and lists of states that appends nothing, and with states that only reads them.
_QUIET = {"append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse", "index", "count", "copy", "fork"}
_QUIET |= {"text", "messages", "get_var", "get_meta_info", "set_var"}


def _appends(op: Op, states: Collection[str]) -> bool:
    """Whether host code may append to states that it finds under some names: `forks += ...`, `forks.join()`."""
    nodes = [node for statement in parse(op).body for node in walk(statement)] if states else []
    for node in nodes:
        match node:
            case ast.AugAssign(target=target) if _root(target) in states:
                return True
            case ast.Call(func=ast.Attribute(value=base, attr=method)) if method not in _QUIET:
                if _root(base) in states:
                    return True
    return False


def _root(node: ast.expr) -> str | None:
    """The name that a chain of items and attributes begins with."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _only_defines(op: Op) -> bool:
    """Whether code does no more than define functions."""
    body = parse(op).body
    return all(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and not each.decorator_list for each in body)


def _name(op: Op, kind: str, host_of: HostOf) -> str | None:
    if kind == _TOOL:
        return _called_tool(op, host_of(op))
    return op.attrs.get("name") or op.attrs.get("callee")


def _called_tool(op: Op, host: HostOp) -> str | None:
    """The name of the first tool that host code calls by its name."""
    for node in (node for statement in parse(op).body for node in walk(statement)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found = outside(cast(FunctionType, host.owner), node.func.id)
            if getattr(found, "__ramify__", None) == "tool":
                return str(found.name)
    return None


def _place(op: Op, before: Sequence[Op]) -> Value | None:
    """What holds the state that an op uses, before the ops that lead to it have run."""
    states = [value for value in op.operands if value.type.kind in ("cell", "prompt")]
    value = op.operands[0] if op.name in ("prompt.fork", "flow.invoke") and not states else next(iter(states), None)
    made = {result: each for each in before for result in each.results}
    while value in made:
        maker = made[value]
        leads_on = maker.name in ("cell.load", "cell.of") or maker.name.startswith(("prompt.", "lm."))
        value = maker.operands[0] if leads_on and maker.operands else None
    return value
