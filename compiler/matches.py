"""`match` -> one host op for each pattern, with its guard, and a flow.if: its body, or the cases behind it.

A guard that mentions a state is evaluated by ops of its own once the pattern fits, so that nothing waits on a thread.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..ir.core import Value
from .branching import choose
from .expressions import lower_expression
from .lowering import Lowering
from .scope import stored_names

_LowerBody = Callable[[list[ast.stmt]], None]


def lower_match(low: Lowering, node: ast.Match, lower_body: _LowerBody) -> None:
    """Lower a match statement; `lower_body` lowers the statements of a case."""
    _cases(low, lower_expression(low, node.subject), node.cases, lower_body)


def _cases(low: Lowering, subject: Value, cases: Sequence[ast.match_case], lower_body: _LowerBody) -> None:
    if not cases:
        return
    first, rest = cases[0], cases[1:]
    match first:
        case ast.match_case(pattern=ast.MatchAs(pattern=None, name=name), guard=None):
            if name is not None:
                with low.at(first.pattern):
                    low.assign(name, subject)
            return lower_body(first.body)
    taken = _taken(low, subject, first)

    def body() -> None:
        with _surely(low, stored_names(first.pattern)):
            lower_body(first.body)

    choose(low, taken, body, lambda: _cases(low, subject, rest, lower_body), low.assigned([*first.body, *rest]))


def _taken(low: Lowering, subject: Value, case: ast.match_case) -> Value:
    """Whether the subject fits the pattern and the guard holds; binds the names in the pattern if it fits."""
    guard = case.guard
    if guard is None or not low.scope.mentions(guard):
        return _fits(low, subject, case.pattern, guard)
    fits = _fits(low, subject, case.pattern, None)
    taken = low.temporary()
    low.env[taken] = fits

    def ask() -> None:
        with low.at(guard), _surely(low, stored_names(case.pattern)):
            low.env[taken] = lower_expression(low, guard)

    with low.at(guard):
        choose(low, fits, ask, lambda: None, [*low.assigned([guard]), taken])
    return low.env.pop(taken)


def _fits(low: Lowering, subject: Value, pattern: ast.pattern, guard: ast.expr | None) -> Value:
    fits = low.temporary()
    low.scope.locals.add(fits)
    target = ast.Name(fits, ast.Store())
    hit = ast.match_case(pattern, guard, [ast.Assign([target], ast.Constant(True))])
    nodes = [ast.Assign([target], ast.Constant(False)), ast.Match(ast.Name("__subject", ast.Load()), [hit])]
    code = "\n".join(ast.unparse(ast.fix_missing_locations(node)) for node in nodes)
    with low.at(pattern, guard or pattern):
        low.block_op(code, nodes, {"__subject": subject})
    return low.env.pop(fits)


@contextmanager
def _surely(low: Lowering, names: Sequence[str]) -> Iterator[None]:
    """Inside, the plain variables among `names` have certainly been assigned."""
    values = {low.env[name] for name in names if name in low.env} & low.unsure
    low.unsure -= values
    yield
    low.unsure |= values
