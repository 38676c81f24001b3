"""The step of flow.try: which region runs after which, and how exceptions and leaving go through.

As in Python, an exception that is being handled is what a bare `raise` in a handler raises, what `sys.exc_info()`
shows there, and the `__context__` of what a handler raises. No host thread waits meanwhile.
"""

from __future__ import annotations

import asyncio

from ..ir.core import Op
from .handling import set_context
from .host import Escaped
from .linker import LEAVE, YIELD, Frame, LinkedRegion, Linker, Outcome, Step, execute
from .trail import tidy, unmark

# How a region ended: its outcome, or the exception that left it.
_End = tuple[Outcome, BaseException | None]
_NORMAL: Outcome = (YIELD, [])


def flow_try(linker: Linker, op: Op) -> Step:
    body, handlers, orelse, final = (linker.region(region) for region in op.regions)
    how_slot, value_slot = linker.slots(op.results)
    is_final = len(op.regions[3].ops) > 1 or op.regions[3].ops[0].name != "flow.yield"

    async def step(frame: Frame) -> None:
        end = await _watched(body, frame)
        if end[1] is not None:
            end = await _handle(handlers, end[1], frame)
        elif end[0][0] == YIELD:
            end = await _watched(orelse, frame) if is_final else (await execute(orelse, frame), None)
        if is_final:
            end = await _finish(final, end, frame)
        (kind, values), error = end
        if error is not None:
            frame.strand.caught = None  # it goes on as it came
            raise Escaped(error) if isinstance(error, StopIteration) else error
        left = values if kind == LEAVE else (None, None)
        frame.values[how_slot], frame.values[value_slot] = left

    return step


async def _watched(region: LinkedRegion, frame: Frame) -> _End:
    """Run a region whose exceptions the try sees. What it reads is waited for at once, so that it fails here."""
    frame.strand.num_watching += 1
    try:
        return await execute(region, frame), None
    except GeneratorExit:
        raise
    except BaseException as raised:
        error = raised.error if isinstance(raised, Escaped) else raised
    finally:
        frame.strand.num_watching -= 1
    return _NORMAL, await _attributed(error, frame)


async def _attributed(error: BaseException, frame: Frame) -> BaseException:
    """The exception as the program sees it.

    Raises what is no exception of the try's: that of a read before it, or of what was put off. An eager run had met it
    there.
    """
    context = frame.context
    if error is context.cancelled:
        context.on_cancel = None  # the program knows: what it does in a `finally` is not disturbed
    elif frame.strand.is_earlier(error):
        raise Escaped(error) if isinstance(error, StopIteration) else error
    elif not isinstance(error, asyncio.CancelledError):
        try:
            earlier = await frame.strand.read_error()
        except Exception as cancelled:
            return cancelled
        if earlier is not None:
            raise earlier
    context.told(error)
    set_context(error, frame.handled)
    tidy(error)
    unmark(error)
    frame.strand.caught = error
    return error


async def _handle(handlers: LinkedRegion, error: BaseException, frame: Frame) -> _End:
    """Run the handlers, unless the run was cancelled: nothing can go on then."""
    if error is frame.context.cancelled:
        return _NORMAL, error
    outer, frame.handled = frame.handled, error
    frame.values[handlers.args[0]] = error
    try:
        return await _watched(handlers, frame)
    finally:
        frame.handled = outer


async def _finish(final: LinkedRegion, end: _End, frame: Frame) -> _End:
    """Run the final region; how it is left counts more than how the regions before it were."""
    error = end[1]
    is_cancelled = error is not None and error is frame.context.cancelled
    outer, frame.handled = frame.handled, error or frame.handled
    frame.strand.num_watching += error is not None
    try:
        outcome = await execute(final, frame)
    except Exception as raised:
        if is_cancelled:
            return end
        met = raised.error if isinstance(raised, Escaped) else raised
        if not frame.strand.is_earlier(met):
            set_context(met, error)
        raise
    finally:
        frame.strand.num_watching -= error is not None
        frame.handled = outer
    return end if outcome[0] == YIELD or is_cancelled else (outcome, None)
