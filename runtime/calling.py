"""Calls of host code that may block or have effects: on a host thread, and in program order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..ir.span import Span
from .handling import while_handling
from .host import Escaped, HostOp
from .hostpool import host_pool
from .linker import Frame
from .pending import Pending


def in_pool(frame: Frame, function: Callable[..., Any], *args: Any, span: Span | None = None) -> Pending[Any]:
    """Call host code where it may block: on a host thread, with the context variables of whoever started the run.

    That of an `async def` program, and of what it calls, belongs to the task of the run instead. A prediction decides
    itself what may run. span: where it stands.
    """
    if frame.context.run_guarded is not None:
        return frame.context.run_guarded(function, args)
    if frame.handled is not None:
        function, args = while_handling, (frame.handled, function, *args)
    if frame.task is not None:
        return frame.context.time_host(frame.task.call(function, *args), span)
    run = frame.context.run_host

    def call() -> Any:
        try:
            return run(function, *args)
        except StopIteration as error:
            raise Escaped(error) from None

    return frame.context.time_host(host_pool().submit(call), span)


def runs_here(frame: Frame, host: HostOp, values: Sequence[Any]) -> bool:
    """Whether host code, on these operands, runs on the loop thread."""
    return host.is_quick(values) and frame.context.run_guarded is None


async def in_pool_in_turn(frame: Frame, function: Callable[..., Any], *args: Any, span: Span | None = None) -> Any:
    """The same for code that nothing was known of: what was put off before it goes first."""
    await frame.strand.order.turn()
    return await in_pool(frame, function, *args, span=span)
