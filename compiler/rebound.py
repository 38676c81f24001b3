"""Texts and expressions that are assigned to the name of a state: `s = "text"`, where `s += "text"` was probably meant.

Python allows it, so it is a warning and no error. Only what is a text or an expression by its form counts: a name that
is given other states, or anything that is computed, is being used for something else on purpose.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FunctionType

from ..ir.errors import CompileError, ReboundStateWarning
from ..ir.private import private_prefix, unmangled
from ..ir.span import Span
from .resolve import Resolver
from .scope import Derived, analyse, bindings
from .source import NoSource, Source, function_source

_TEXT_METHODS = {"format", "join"}


@dataclass(frozen=True, slots=True)
class Rebound:
    """A place where a state's name is given a text."""

    span: Span
    name: str

    @property
    def message(self) -> str:
        """What is wrong."""
        return f"`{self.name}` is a state until here, and this appends nothing to it"

    @property
    def help(self) -> str:
        """What to do about it."""
        return f"to append, write `{self.name} += ...`; for something else take another name"


def find_rebound(source: Source, resolver: Resolver, states: set[str]) -> list[Rebound]:
    """The places in a function, whose parameters in `states` are states, where a state's name is given a text."""
    given = [(name, value) for name, value in _given(source.tree) if _is_text(resolver, value)]
    if not given:
        return []
    ignored = frozenset(id(value) for _, value in given)
    without = analyse(source, states, resolver.scope.shadowed, ignored)
    return [Rebound(source.span(value), name) for name, value in given if without.kinds.get(name) == "state"]


def _given(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Each name with the expression that it is given, in the order of the source."""
    found = [(name, value) for name, value in bindings(tree) if isinstance(value, ast.expr)]
    written = [(name, value) for name, value in found if not isinstance(value, Derived)]
    yield from sorted(written, key=lambda each: (each[1].lineno, each[1].col_offset))


def _is_text(resolver: Resolver, node: ast.expr) -> bool:
    """Whether an expression is, by its form, a text or something that is appended."""
    match node:
        case ast.Constant(value=str()) | ast.JoinedStr():
            return True
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _is_text(resolver, left) or _is_text(resolver, right)
        case ast.BinOp(left=ast.Constant(value=str()) | ast.JoinedStr()):
            return True
        case ast.IfExp(body=yes, orelse=no):
            return _is_text(resolver, yes) and _is_text(resolver, no)
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str()), attr=method)) if method in _TEXT_METHODS:
            return True
    return resolver.primitive(node) is not None


def rebound_in(function: FunctionType, position: int) -> list[Rebound]:
    """Those of a function whose parameter at `position` is its state; none where its source is not to be had."""
    if hasattr(function, "__wrapped__") or len(function.__code__.co_varnames) <= position:
        return []
    try:
        source = function_source(function)
    except (NoSource, CompileError):
        return []
    states = {unmangled(function.__code__.co_varnames[position], private_prefix(function.__qualname__))}
    return find_rebound(source, Resolver(function, analyse(source, states, set())), states)


def warn_rebound(found: Iterable[Rebound], function: FunctionType) -> None:
    """A ReboundStateWarning at each place, shown once as Python's own warnings are. function: the program's."""
    registry = function.__globals__.setdefault("__warningregistry__", {})
    for each in found:
        words = f"{each.message}; {each.help}"
        warnings.warn_explicit(words, ReboundStateWarning, each.span.file, each.span.line, registry=registry)
