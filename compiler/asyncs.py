"""`async with` around a state -> a flow.try, with the manager's own `__aenter__` and `__aexit__` as host code.

(A `with` may be bound to the thread that entered it, so it runs as Python; all host code of an `async def` program runs
in one asyncio task.)
"""

from __future__ import annotations

import ast
from collections.abc import Callable

from ..ir.core import Value
from .branching import choose
from .expressions import bind_target, lower_expression
from .leaving import Ending
from .lowering import Lowering
from .tries import lower_guarded, raise_again

# The statement in the middle says what Python says of an object that is no such manager.
_ENTER = """\
{kind} = type(__manager)
{enter}, {exit} = getattr({kind}, '__aenter__', None), getattr({kind}, '__aexit__', None)
if {enter} is None or {exit} is None:
    async with __manager: pass
{value} = await {enter}(__manager)"""
_EXIT = "await __exit(__manager, None, None, None)"
_EXIT_WITH_ERROR = "await __exit(__manager, type(__error), __error, __error.__traceback__)"


def lower_async_with(low: Lowering, node: ast.AsyncWith, lower_body: Callable[[], None]) -> None:
    """Lower a body inside async context managers."""
    first, *rest = node.items
    with low.at(first.context_expr):
        manager = lower_expression(low, first.context_expr)
        leave, value = _enter(low, manager)

    def exit(code: str, **error: Value) -> Value:
        with low.at(first.context_expr):
            return low.expression_op(code, [], {"__exit": leave, "__manager": manager, **error})

    def end() -> None:
        exit(_EXIT)

    def inside() -> None:
        if first.optional_vars is not None:
            with low.at(first.optional_vars):
                bind_target(low, first.optional_vars, value)
        if rest:
            lower_async_with(low, ast.AsyncWith(rest, node.body), lower_body)
        else:
            lower_body()

    def failed(error: Value) -> None:
        is_over = exit(_EXIT_WITH_ERROR, __error=error)
        choose(low, is_over, lambda: None, lambda: raise_again(low, error), [])

    low.around.append(Ending(end))
    lower_guarded(low, node, inside, failed=failed, ended=end)
    low.around.pop()


def _enter(low: Lowering, manager: Value) -> tuple[Value, Value]:
    """Enter a manager: its `__aexit__`, and what `as` binds."""
    names = {name: low.temporary() for name in ("kind", "enter", "exit", "value")}
    low.scope.locals.update(names.values())
    code = _ENTER.format(**names)
    low.block_op(code, ast.parse(code).body, {"__manager": manager})
    values = {name: low.env.pop(own) for name, own in names.items()}
    return values["exit"], values["value"]
