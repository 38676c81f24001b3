"""Notes, while a function is lowered, which variables are visible at each op, and which statement the op is of."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..ir.builder import Builder
from ..ir.core import Op, Region, Value
from ..ir.debug_info import DebugInfo
from ..ir.span import Span
from ..ir.syntax import walk
from .lowering import Lowering
from .source import Source

_HEADS = ("test", "target", "iter", "subject", "args", "returns")


class NotingBuilder(Builder):
    """A builder that keeps the debug information of what it makes. lowering: whose variables they are."""

    lowering: Lowering

    def __init__(self, region: Region, info: DebugInfo) -> None:
        super().__init__(region)
        self._info = info
        self._made: list[Op] = []

    def op(self, name: str, operands: Iterable[Value] = (), /, **given: Any) -> Op:
        """See Builder."""
        made = super().op(name, operands, **given)
        self._info.names[made] = _visible(self.lowering)
        if "inputs" in given:
            self._info.states[made] = frozenset(given["inputs"]) & self.lowering.scope.kinds.keys()
        self._made.append(made)
        return made

    def place(self, source: Source) -> None:
        """Find the statement of each op, once all are made."""
        statements = list(_statements(source))
        for op in self._made:
            if op.span is not None and (around := [each for each in statements if _holds(each[0], op.span)]):
                self._info.statements[op] = min(around, key=lambda each: _extent(each[0]))[1]


def _visible(low: Lowering) -> dict[str, tuple[Value, ...]]:
    found = {name: (value,) for name, value in (low.env | low.boxes).items() if not name.startswith("__")}
    return found | {name: (*found[name], variable) for name, variable in low.followed.items() if name in found}


def _statements(source: Source) -> Iterator[tuple[Span, Span]]:
    """Each statement, and its head: all of a simple one, of a compound one what stands before its body."""
    for node in walk(source.tree):
        if isinstance(node, ast.stmt):
            whole = source.span(node)
            yield whole, _head(source, node, whole)


def _head(source: Source, node: ast.stmt, whole: Span) -> Span:
    body: Sequence[ast.AST] | None = getattr(node, "body", None) or getattr(node, "cases", None)
    if not body:
        return whole
    inside = [each for name in _HEADS if isinstance(each := getattr(node, name, None), ast.expr)]
    inside += [item.optional_vars or item.context_expr for item in getattr(node, "items", ())]
    ends = [source.span(each) for each in inside]
    line = max((end.end_line for end in ends), default=whole.line)
    column = max((end.end_column for end in ends if end.end_line == line), default=len(whole.source_line()))
    return Span(whole.file, whole.line, whole.column, line, column)


def _holds(outer: Span, inner: Span) -> bool:
    return (outer.line, outer.column) <= (inner.line, inner.column) and (inner.end_line, inner.end_column) <= (
        outer.end_line,
        outer.end_column,
    )


def _extent(span: Span) -> tuple[int, int]:
    return span.end_line - span.line, span.end_column - span.column
