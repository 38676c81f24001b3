"""Executes a program once: compiled on the loop, or eagerly on a host thread; both end the same way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

from ..ir.errors import Cancelled
from ..runtime.context import Context
from ..runtime.generation import StreamEvent
from ..runtime.host import Escaped
from ..runtime.hostpool import host_pool
from ..runtime.loop import loop, post
from ..runtime.pending import Pending
from ..runtime.routine import Routine, spawn
from ..runtime.trail import locate, tidy
from .arguments import Arguments
from .failures import wants_debug
from .options import Options
from .run import Run
from .state import State

if TYPE_CHECKING:
    from .compiled import Compiled


class Execution:
    """One run in the making. `emit` takes its stream events, on any thread."""

    __slots__ = ("_arguments", "_compiled", "_function", "_timeout", "context", "state")

    def __init__(
        self,
        function: FunctionType,
        compiled: Compiled | None,
        arguments: Arguments,
        options: Options,
        emit: Callable[[StreamEvent], None] | None = None,
    ) -> None:
        self._function = function
        self._compiled = compiled
        self._arguments = arguments
        self._timeout = options.timeout
        self.context = Context(options.open_backend(), options.sampling, emit)
        self.state = self.context.state = State(self.context.root())

    def start(self) -> Pending[Run]:
        """Begin; the run comes on the loop thread and carries its error, if it has one. On the loop thread."""
        outcome: Pending[Run] = Pending()
        body = Routine(self._body())
        self.context.on_cancel = body.cancel
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
        return outcome

    def _set_timer(self) -> Any:
        if self._timeout is None:
            return None
        error = Cancelled(f"the run took longer than its timeout of {self._timeout:g} s")
        return loop().later(self._timeout, self.context.cancel, error)

    def _body(self) -> Any:
        if self._compiled is not None:
            return self._compiled.interpreter.run(self.context, self._arguments.with_state(self.state))
        return _awaited(host_pool().submit(self._call))

    def _call(self) -> Any:
        return self.context.host_context.run(self._arguments.call, self._function, self.state)

    async def _conclude(self, value: Any, error: BaseException | None) -> Run:
        if isinstance(error, Escaped):
            error = error.error
        locate(error)
        error = await self.context.conclude(error)
        if not wants_debug():
            tidy(error)
        return Run(self.context, self.state, None if error is not None else value, error)

    def run_here(self) -> Run:
        """Run the body eagerly on this very thread, and wait for what it leaves unfinished."""
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
