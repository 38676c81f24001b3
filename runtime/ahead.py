"""The task of a host op that was put off: it waits for its operands and for its turn, runs, and delivers the results.

The call of a pure tool is put off always, and waits for no turn unless it is given what others may change.

What it raises is raised to whoever waits for a result or for a later turn, and at the end of the run, as the first
error in program order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..ir.core import Op
from .calling import in_pool, runs_here
from .host import Escaped, HostOp, Unbound
from .hostpool import host_pool
from .linker import Frame, place
from .order import Late
from .pending import AnnouncedText, Pending, PendingObject, PendingText, Settled
from .prompt import Prompt
from .routine import Routine

# What a task may wait for to look into: texts, numbers, what other tasks give. (A PendingObject may be of any class.)
_AWAITED = (Pending, PendingText, AnnouncedText, Late)
# What is promised of a pure tool's value.
_PROMISED: dict[str, type[Pending[Any]]] = {"text": AnnouncedText, "scalar": Pending, "object": Late}


def put_off(frame: Frame, op: Op, host: HostOp, operands: Sequence[int], results: Sequence[int]) -> bool:
    """Let the op run later, with the operands it has now; its results are on their way. False if that cannot be."""
    strand = frame.strand
    if strand.num_watching or frame.handled is not None or frame.task is not None or strand.order.is_full:
        return False
    strand.order.is_clear()  # forgets what is held no longer
    values = [frame.values[slot] for slot in operands]
    if any(type(value) is Unbound for value in values) or not host.may_await(values, _AWAITED):
        return False
    if (held := host.held(values, strand.order)) is None:
        return False
    work = _call_apart(frame, host) if host.is_pure else partial(in_pool, frame, host, span=op.span)
    is_free = not (strand.order.holds_unknown and host.reads_outside)
    task = Routine(_carry_out(frame, op, host, work, values, strand.order.last, is_free=is_free))
    promised = [PendingObject() if held.has_states else _promise(op, host, values) for _ in results]
    task.add_callback(lambda _: _deliver(frame, op, task, promised))
    strand.remember(task, None, frame.function.program(op))
    if not host.is_pure or held.mutable or any(isinstance(each, PendingObject) for each in (*values, *promised)):
        strand.order.add(task, held)
    for slot, late in zip(results, promised, strict=True):
        frame.values[slot] = late
    task.start()
    return True


def _promise(op: Op, host: HostOp, values: Sequence[Any]) -> Pending[Any]:
    if host.is_pure:
        return _PROMISED[op.attrs["pure"]]()
    return PendingText() if host.is_text(values) else Late()


_Work = Callable[[list[Any]], Pending[Any]]


def _call_apart(frame: Frame, host: HostOp) -> _Work:
    """How a pure tool is called: its place in the trace is here, whenever it runs."""
    context = frame.context
    if context.run_guarded is not None:
        return partial(in_pool, frame, host)
    place = context.place_in_trace()
    return lambda values: host_pool().submit(partial(context.run_apart, place, host, values))


async def _carry_out(
    frame: Frame,
    op: Op,
    host: HostOp,
    work: _Work,
    values: list[Any],
    before: Pending[None] | None,
    *,
    is_free: bool,
) -> Any:
    """is_free: whether what its names from outside mean cannot change before its turn."""
    try:
        for number, value in enumerate(values):
            values[number] = await _arrived(value)
        if before is not None and not ((host.is_pure or (is_free and host.is_quick(values))) and host.is_free(values)):
            await before
        if frame.context.cancelled is not None:
            raise frame.context.cancelled
        return host(values) if runs_here(frame, host, values) else await work(values)
    except Exception as error:
        place(error.error if isinstance(error, Escaped) else error, op, frame)
        raise


async def _arrived(value: Any) -> Any:
    if isinstance(value, Prompt):
        while (late := value.unread()) is not None:
            await Settled(late)  # a read of what has failed raises by itself
    while isinstance(value, Pending):
        await Settled(value)
        if value.error is not None:
            raise value.error  # as it is by now: who has read it before has said where
        value = value.result()
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
