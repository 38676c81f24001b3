"""Executes a program once: compiled on the loop, or eagerly on a host thread; both end the same way.

An `async def` program has an asyncio task as well (runtime/hosttask.py), in which its host code runs; eagerly, all of
it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

from ..ir.errors import Cancelled
from ..runtime.context import Context
from ..runtime.generation import StreamEvent
from ..runtime.host import Escaped
from ..runtime.hostpool import host_pool
from ..runtime.hosttask import HostTask, PrivateLoop
from ..runtime.loop import loop, post
from ..runtime.pending import Pending
from ..runtime.routine import Routine, spawn
from ..runtime.sharing import Sharing
from ..runtime.trail import locate, tidy
from .arguments import Arguments
from .failures import wants_debug
from .options import Options
from .run import Live, Run
from .state import State

if TYPE_CHECKING:
    from .compiled import Compiled


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a program is a coroutine function, under its decorators."""
    return inspect.iscoroutinefunction(inspect.unwrap(function))


class Execution:
    """One run in the making. `emit` takes its stream events, on any thread.

    home: the event loop on which an `async def` program awaits; without one, the run makes its own.
    """

    __slots__ = (
        "_arguments",
        "_body",
        "_compiled",
        "_function",
        "_timeout",
        "context",
        "is_async",
        "state",
        "task",
    )

    def __init__(
        self,
        function: FunctionType,
        compiled: Compiled | None,
        arguments: Arguments,
        options: Options,
        emit: Callable[[StreamEvent], None] | None = None,
        home: asyncio.AbstractEventLoop | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        self._function = function
        self._compiled = compiled
        self._arguments = arguments
        self._timeout = options.timeout
        self.context = Context(options.open_backend(), options.sampling, emit, sharing)
        self.context.is_compiled = compiled is not None
        self.state = self.context.strand.state = State(self.context.root())
        self.is_async = is_async(function) if compiled is None else compiled.is_async
        self.task = HostTask(home, self.context, self._interrupt) if self.is_async and home is not None else None
        self._body: Routine[Any] | None = None

    def start(self) -> Pending[Run]:
        """Begin; the run comes on the loop thread and carries its error, if it has one. On the loop thread."""
        outcome: Pending[Run] = Pending()
        ended = self._serve(outcome) if self.is_async else outcome
        self.begin(outcome)
        return ended

    def begin(self, outcome: Pending[Run]) -> None:
        """The same for an `async def` program whose task is served already. On the loop thread."""
        body = self._body = Routine(self._run_body())
        self.context.on_cancel = self._cancel_body
        timer = self._set_timer()

        def end(_: Pending[Any]) -> None:
            self.context.on_cancel = None
            value = None if body.error is not None else body.result()
            conclusion = Routine(self._conclude(value, body.error))
            conclusion.add_callback(lambda done: outcome.set_result(done.result()))
            conclusion.start()
            if timer is not None:
                outcome.add_callback(lambda _: timer.cancel())

        body.add_callback(end)
        body.start()

    def _serve(self, outcome: Pending[Run]) -> Pending[Run]:
        """Have the calls of an `async def` program made; gives the run once its event loop is closed, if it is own."""
        if self.task is not None:
            self.task.start(outcome, lambda: None)
            return outcome
        private, ended = PrivateLoop(), Pending[Run]()
        self.task = HostTask(private.asyncio, self.context, self._interrupt)
        self.task.start(outcome, private.end)
        private.ended.add_callback(lambda _: outcome.then(lambda run: run, ended))
        return ended

    def _cancel_body(self, error: BaseException) -> None:
        assert self._body is not None
        if self.task is not None:
            self.task.drop()  # first: what the body does in a `finally` is no part of it
        self._body.cancel(error)

    def _interrupt(self, error: BaseException) -> None:
        """The asyncio task was cancelled: raised in the program where it waits, or the end of an ended one."""
        if self._body is None or self._body.done:
            self.context.cancel(error)
        else:
            self._body.cancel(error)

    def _set_timer(self) -> Any:
        if self._timeout is None:
            return None
        error = Cancelled(f"the run took longer than its timeout of {self._timeout:g} s")
        return loop().later(self._timeout, self.context.cancel, error)

    def _run_body(self) -> Any:
        if self._compiled is not None:
            strand = self.context.strand
            strand.task = self.task
            return self._compiled.interpreter.run(strand, self._arguments.with_state(self.state))
        if self.task is not None:
            return _awaited(self.task.run(self._arguments.call, self._function, self.state))
        return _awaited(host_pool().submit(self._call))

    def _call(self) -> Any:
        try:
            return self.context.run_host(self._arguments.call, self._function, self.state)
        except StopIteration as error:
            raise Escaped(error) from None

    async def _conclude(self, value: Any, error: BaseException | None) -> Run:
        if isinstance(error, Escaped):
            error = error.error
        locate(error)
        error = await self.context.conclude(error)
        locate(error)
        if not wants_debug():
            tidy(error)
        return Run(Live(self.context, self.state), None if error is not None else value, error)

    def unbegun(self, error: BaseException | None) -> Run:
        """The run, without having begun, and why."""
        return Run(Live(self.context, self.state), None, error)

    def run_here(self) -> Run:
        """Run the body eagerly on this very thread, and wait for what it leaves unfinished."""
        assert not self.is_async
        value, error = None, None
        try:
            value = self._call()
        except BaseException as raised:
            error = raised
        return spawn(self._conclude(value, error)).wait()

    def cancel(self, error: BaseException | None = None) -> None:
        """End it as soon as can be. Thread-safe."""
        post(self.context.cancel, error)


async def _awaited(pending: Awaitable[Any]) -> Any:
    return await pending
