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
from ..runtime.context import Context, running
from ..runtime.generation import StreamEvent
from ..runtime.host import Escaped
from ..runtime.hostpool import host_pool
from ..runtime.hosttask import HostTask, PrivateLoop
from ..runtime.loop import loop, post
from ..runtime.pending import Pending
from ..runtime.routine import Routine, spawn
from ..runtime.sharing import Sharing
from ..runtime.trail import locate, tidy
from . import cassettes
from .arguments import Arguments, definition
from .failures import wants_debug
from .options import Options
from .run import Live, Origin, Run
from .state import State

if TYPE_CHECKING:
    from ..backends.replay.cassette import Cassette
    from ..backends.replay.track import RunTrack
    from .compiled import Compiled
    from .program import Program


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a program is a coroutine function, under its decorators."""
    return inspect.iscoroutinefunction(inspect.unwrap(function))


class Execution:
    """One run in the making. `emit` takes its stream events, on any thread.

    ended: the run, which carries its error if it has one; it comes on the loop thread.
    home: the event loop on which an `async def` program awaits; without one, the run makes its own. cassette: what
    records or plays it; else that of the program that begins it, or of the `with` around. program: what runs it again.
    """

    __slots__ = (
        "_arguments",
        "_compiled",
        "_function",
        "_is_over",
        "_origin",
        "_routine",
        "_timeout",
        "_track",
        "context",
        "ended",
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
        cassette: Cassette | None = None,
        program: Program | None = None,
    ) -> None:
        self._function = function
        self._compiled = compiled
        self._arguments = arguments
        self._timeout = options.timeout
        track = self._track = self._begin_track(cassette, options)
        backend = options.open_backend() if track is None else track.backend
        self._origin = Origin(program, arguments, options) if program is not None and track is not None else None
        self.context = Context(backend, options.sampling, emit, sharing)
        self.context.track = track
        self.context.is_compiled = compiled is not None
        self.context.owner.kind = function
        self.state = self.context.strand.state = State(self.context.root())
        self.is_async = is_async(function) if compiled is None else compiled.is_async
        self.task = HostTask(home, self.context, self._interrupt) if self.is_async and home is not None else None
        self.ended: Pending[Run] = Pending()
        self._routine: Routine[Run] | None = None
        self._is_over = False

    def _begin_track(self, cassette: Cassette | None, options: Options) -> RunTrack | None:
        cassette = cassettes.in_use(cassette)
        if cassette is None and options.record is not True:
            return None
        cassette = cassette or cassettes.in_memory()
        function = inspect.unwrap(self._function)
        arguments = (*self._arguments.before, *self._arguments.values)
        form = "eager" if self._compiled is None else "compiled"
        above = running.get()
        parent: Any = None if above is None else above.track
        if parent is not None and parent.cassette is not cassette:
            parent = None
        track = cassette.track(
            function.__qualname__, arguments, definition(function), parent, form, options.open_backend
        )
        track.cancel = self.cancel
        return track

    def start(self) -> Pending[Run]:
        """Begin; gives `ended`. On the loop thread."""
        routine = self._routine = Routine(self._run())
        if not self.is_async:
            routine.add_callback(self._end)
        elif self.task is not None:
            self.task.start(routine, lambda: None)
            routine.add_callback(self._end)
        else:
            private = PrivateLoop()
            self.task = HostTask(private.asyncio, self.context, self._interrupt)
            self.task.start(routine, private.end)
            private.ended.add_callback(lambda _: routine.add_callback(self._end))
        self._begin(routine)
        return self.ended

    def begin(self) -> None:
        """The same for an `async def` program whose task is served already. On the loop thread."""
        routine = self._routine = Routine(self._run())
        routine.add_callback(self._end)
        self._begin(routine)

    def _begin(self, routine: Routine[Run]) -> None:
        self.context.on_cancel = self._cancel_body
        if self._timeout is not None:
            error = Cancelled(f"the run took longer than its timeout of {self._timeout:g} s")
            timer = loop().later(self._timeout, self.context.cancel, error)
            routine.add_callback(lambda _: timer.cancel())
        routine.start()

    def _end(self, routine: Pending[Run]) -> None:
        self.ended.set_result(routine.result())

    async def _run(self) -> Run:
        value, error = None, None
        try:
            if self._track is not None:
                self._track.begin()
            value = await self._body()
        except BaseException as raised:
            error = raised
        self.context.on_cancel = None
        self._is_over = True
        return await self._conclude(value, error)

    def _cancel_body(self, error: BaseException) -> None:
        assert self._routine is not None
        if self.task is not None:
            self.task.drop()  # first: what the body does in a `finally` is no part of it
        self._routine.cancel(error)

    def _interrupt(self, error: BaseException) -> None:
        """The asyncio task was cancelled: raised in the program where it waits, or the end of an ended one."""
        if self._routine is None or self._is_over:
            self.context.cancel(error)
        else:
            self._routine.cancel(error)

    def _body(self) -> Any:
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
        if self._track is not None:
            error = self._track.end(error, self.context.leaves())
        locate(error)
        if error is not None and not wants_debug():
            tidy(error)
        return Run(Live(self.context, self.state, self._origin), None if error is not None else value, error)

    def unbegun(self, error: BaseException | None) -> Run:
        """The run, without having begun, and why."""
        if self._track is not None:
            self._track.end(error, ())
        return Run(Live(self.context, self.state, self._origin), None, error)

    def run_here(self) -> Run:
        """Run the body eagerly on this very thread, and wait for what it leaves unfinished."""
        assert not self.is_async
        value, error = None, None
        try:
            if self._track is not None:
                self._track.begin()
            value = self._call()
        except BaseException as raised:
            error = raised
        return spawn(self._conclude(value, error)).wait()

    def cancel(self, error: BaseException | None = None) -> None:
        """End it as soon as can be. Thread-safe."""
        post(self.context.cancel, error)


async def _awaited(pending: Awaitable[Any]) -> Any:
    return await pending
