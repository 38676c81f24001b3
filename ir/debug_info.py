"""What a module says for debuggers: for its ops, the statement that they belong to and the variables visible there."""

from __future__ import annotations

from dataclasses import dataclass, field

from .core import Op, Value
from .span import Span


@dataclass(slots=True)
class DebugInfo:
    """By op. names: the local variables before it, each with the values that hold it: the plain one or its box, and
    the variable (var.new) that follows it in a try, if there is one. statements: of a compound statement the head.
    states: of host code, those of its inputs that hold states, or groups and lists of such.

    Ops that are not in it, as those of a module from a file, have no known names, and stand for themselves.
    """

    names: dict[Op, dict[str, tuple[Value, ...]]] = field(default_factory=dict)
    statements: dict[Op, Span] = field(default_factory=dict)
    states: dict[Op, frozenset[str]] = field(default_factory=dict)

    def names_at(self, op: Op) -> dict[str, tuple[Value, ...]]:
        """The variables that are visible before an op."""
        return self.names.get(op, {})

    def statement_of(self, op: Op) -> Span | None:
        """The statement that an op belongs to."""
        return self.statements.get(op, op.span)
