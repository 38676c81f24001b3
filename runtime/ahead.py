"""The task of a host op that was put off: it waits for its operands and for its turn, runs, and delivers the results.

What it raises is raised to whoever waits for a result or for a later turn, and at the end of the run, as the first
error in program order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ir.core import Op
from .calling import in_pool, runs_here
from .host import Escaped, HostOp, Unbound
from .linker import Frame, place
from .order import Late
from .pending import Pending, PendingText, Settled
from .prompt import Prompt
from .routine import Routine

# What may be waited for in a task: texts, numbers, what other tasks give. (A PendingObject may be of any class.)
_AWAITED = (Pending, PendingText, Late)


def put_off(frame: Frame, op: Op, host: HostOp, operands: Sequence[int], results: Sequence[int]) -> bool:
    """Let the op run later, with the operands it has now; its results are on their way. False if that cannot be."""
    strand = frame.strand
    if strand.num_watching or frame.handled is not None or frame.task is not None or strand.order.is_full:
        return False
    values = [frame.values[slot] for slot in operands]
    there = [value for value in values if not isinstance(value, Pending)]
    if any(type(value) not in _AWAITED for value in values if isinstance(value, Pending)):
        return False
    if any(type(value) is Unbound for value in there) or (held := host.held(there)) is None:
        return False
    task = Routine(_carry_out(frame, op, host, values, strand.order.last))
    promised: list[Pending[Any]] = [PendingText() if host.is_text else Late() for _ in results]
    task.add_callback(lambda _: _deliver(frame, op, task, promised))
    strand.remember(task, None, frame.function.python_name)
    strand.order.add(task, held)
    for slot, late in zip(results, promised, strict=True):
        frame.values[slot] = late
    task.start()
    return True


async def _carry_out(frame: Frame, op: Op, host: HostOp, values: list[Any], before: Pending[None] | None) -> Any:
    try:
        for number, value in enumerate(values):
            values[number] = await _arrived(value)
        if before is not None and (not host.is_quick(values) or host.held(values) != {}):
            await before
        if frame.context.cancelled is not None:
            raise frame.context.cancelled
        return host(values) if runs_here(frame, host, values) else await in_pool(frame, host, values)
    except Exception as error:
        place(error.error if isinstance(error, Escaped) else error, op, frame)
        raise


async def _arrived(value: Any) -> Any:
    if isinstance(value, Prompt):
        while (late := value.unread()) is not None:
            await Settled(late)  # a read of what has failed raises by itself
    while isinstance(value, Pending):
        value = await value
    return value


def _deliver(frame: Frame, op: Op, task: Pending[Any], promised: Sequence[Pending[Any]]) -> None:
    if task.error is not None:
        for late in promised:
            late.set_error(task.error)
        return
    outputs = [task.result()] if op.name == "py.expr" else task.result()
    frame.strand.order.hold(outputs)  # before any of them can be seen
    for late, output in zip(promised, outputs, strict=True):
        late.set_result(output)
