"""`program(s, ...)` of an `async def` program, called by a coroutine of a compiled run: a part of that run.

What the coroutine awaits is the program's compiled form, so that no read blocks the event loop, and several parts may
go on at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ..ir.errors import Cancelled
from ..runtime.generation import Generation
from ..runtime.hosttask import HostTask
from ..runtime.interpreter import Interpreter
from ..runtime.loop import loop
from ..runtime.prompt import Prompt
from ..runtime.routine import Routine
from ..runtime.strand import Strand
from .state import State


async def run_part(interpreter: Interpreter, state: State, values: Sequence[Any]) -> Any:
    """Run a program's compiled form on a state of a run. values: one for each parameter.

    When it is cancelled, so are the generations that it has appended to the state.
    """
    context, start = state.prompt.context, state.prompt
    strand = Strand(context, state)

    async def body() -> Any:
        value, error = None, None
        try:
            value = await interpreter.run(strand, values)
        except BaseException as raised:
            error = raised
        if isinstance(error, asyncio.CancelledError):
            _give_up(state.prompt, start)
        else:
            error = await strand.read_error() or error
        if error is not None:
            context.told(error)  # the coroutine that awaits this sees it
            raise error
        return value

    routine = Routine(body())
    strand.task = HostTask(asyncio.get_running_loop(), context, routine.cancel)
    loop().soon(routine.start)
    await strand.task.serve(routine)
    return routine.result()


def _give_up(prompt: Prompt, start: Prompt) -> None:
    """Cancel the generations from a prompt on that are still on their way."""
    error = Cancelled("the program was cancelled while this was generated")
    prompt.context.told(error)
    for node in prompt.since(start):
        if isinstance(node.value, Generation) and not node.value.pending.done:
            node.value.cancel(error)
