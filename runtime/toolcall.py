"""One call of a tool, from its start to its end, its error or its timeout.

Tools run on threads of their own (async ones on an asyncio loop of their own), so that neither the interpreter's loop
nor the host pool waits for them. A call that is given up (at its timeout, or because its run was cancelled) ends at
once for whoever waits; a function that hangs keeps its thread, which is a daemon and counts no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

from ..ir.errors import RamifyError
from ..ir.span import Span
from .expression import Where, span_of
from .hostpool import HostPool
from .loop import loop, post
from .pending import Pending

MAX_RUNNING = 256
"""How many tools run at a time; ones that were given up do not count."""
_ANSWER_SECONDS = 0.2


class ToolError(RamifyError):
    """A tool call that failed: a value that can be shown to a model, or an exception.

    tool: the tool's name. type: the name of the exception that the tool raised, or "Timeout", "InvalidArguments",
    "InvalidCall", "UnknownTool". cause: the exception, if there was one.
    """

    def __init__(self, tool: str, type: str, reason: str, *, cause: BaseException | None = None) -> None:
        super().__init__(f"{tool} failed with {type}: {reason}" if tool else f"{type}: {reason}")
        self.tool = tool
        self.type = type
        self.reason = reason
        self.cause = cause

    @classmethod
    def of(cls, tool: str, error: BaseException) -> ToolError:
        """The value that stands for what a tool raised."""
        return error if isinstance(error, ToolError) else cls(tool, type(error).__name__, str(error), cause=error)

    def __str__(self) -> str:
        """What happened, for a model as well; where it happened is in `span`."""
        return self.message

    def __repr__(self) -> str:
        return f"<ToolError {self.message}>"


@dataclass(frozen=True, slots=True)
class ToolRecord:
    """A tool call of a run, for the trace. `ms` are milliseconds; error is set if it failed or was given up."""

    name: str
    arguments: dict[str, Any]
    span: Span | None
    ms: float
    error: BaseException | None
    kind: Literal["tool"] = "tool"


class ToolCall:
    """A call on its way; `pending` is done when it has ended, on the loop thread.

    work: what is called; a coroutine function for an async tool. timeout: in seconds, from when the work begins, which
    is at began_at, by `time.perf_counter`.
    is_over: whether it has ended or was given up, which may be before `pending` is done.
    """

    def __init__(
        self,
        name: str,
        arguments: dict[str, Any],
        work: Callable[[], Any],
        *,
        is_async: bool,
        timeout: float | None,
        where: Where,
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.where = where
        self.timeout = timeout
        self.pending: Pending[Any] = Pending()
        self.ms = 0.0
        self._work = work
        self._is_async = is_async
        self.began_at: float | None = None
        self._stop: Callable[[], object] | None = None
        self.is_over = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin, with the context variables of the caller. Thread-safe."""
        _outstanding.add(self)
        self.pending.add_callback(lambda _: _outstanding.discard(self))
        context = contextvars.copy_context()
        if self._is_async:
            _tool_loop().submit(self, context, self._work)
        else:
            _tool_pool().submit(lambda: self._run(context))

    def start_here(self) -> None:
        """Begin an async tool on the asyncio loop that is running on this thread."""
        home = asyncio.get_running_loop()
        task = home.create_task(_perform(self, self._work))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        self.begin(lambda: home.call_soon_threadsafe(task.cancel))

    async def arrival(self) -> Any:
        """The call's value, awaited in asyncio; a wait that is cancelled gives the call up."""
        home = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def arrive(_: Pending[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed by now: nobody waits
                home.call_soon_threadsafe(arrived.set)

        self.pending.add_callback(arrive)
        try:
            await arrived.wait()
        except asyncio.CancelledError as error:
            self.give_up(error)
            raise
        return self.pending.result()

    def begin(self, stop: Callable[[], object]) -> bool:
        """The work begins now, on its thread; `stop` gives it up. False when it was given up before."""
        with self._lock:
            if self.is_over:
                return False
            self.began_at = perf_counter()
            self._stop = stop
        if self.timeout is not None:
            timer = loop().later(self.timeout, self._expire)
            self.pending.add_callback(lambda _: timer.cancel())
        return True

    def end(self, value: Any, error: BaseException | None) -> bool:
        """The work has ended, on its thread. False when it was given up before."""
        if not self._finish():
            return False
        if error is None:
            loop().soon(self.pending.set_result, value)
        else:
            loop().soon(self.pending.set_error, error)
        return True

    def play(self, value: Any, error: BaseException | None, ms: float = 0.0) -> None:
        """End without having begun, with a value or an error that is known already. Thread-safe."""
        if self._finish():
            self.ms = ms
            if error is None:
                post(self.pending.set_result, value)
            else:
                post(self.pending.set_error, error)

    def give_up(self, error: BaseException) -> None:
        """Fail with `error`, whatever the work does; nothing happens when the call has ended. Thread-safe."""
        if self._finish():
            if self._stop is not None:
                self._stop()
            post(self.pending.set_error, error)

    def record(self) -> ToolRecord:
        """Its line in the trace."""
        return ToolRecord(self.name, self.arguments, span_of(self.where), self.ms, self.pending.error)

    def _finish(self) -> bool:
        with self._lock:
            if self.is_over:
                return False
            self.is_over = True
            if self.began_at is not None:
                self.ms = (perf_counter() - self.began_at) * 1000
            return True

    def _expire(self) -> None:
        self.give_up(ToolError(self.name, "Timeout", f"no answer within {self.timeout:g} s"))

    def _run(self, context: contextvars.Context) -> None:
        """Do the work on a thread of the pool; one that was given up meanwhile comes back into the pool's count."""
        pool = _tool_pool()
        if not self.begin(pool.block):
            return
        value, error = None, None
        try:
            value = context.run(self._work)
        except BaseException as raised:
            error = raised
        if not self.end(value, error):
            pool.unblock()


class _ToolLoop:
    """An asyncio loop on a daemon thread, for async tools."""

    def __init__(self) -> None:
        self.asyncio = asyncio.new_event_loop()
        self._answered = threading.Event()
        self._answered.set()
        threading.Thread(target=self._serve, name="ramify-async-tools", daemon=True).start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.asyncio)
        self.asyncio.run_forever()

    def submit(self, call: ToolCall, context: contextvars.Context, work: Callable[[], Any]) -> None:
        """Run an async tool. Thread-safe."""
        task: asyncio.Task[None] | None = None

        def start() -> None:
            nonlocal task
            if not call.is_over:
                task = self.asyncio.create_task(_perform(call, work), context=context)

        def stop() -> None:
            self._answered.set()
            if task is not None:
                task.cancel()

        def ask_to_stop() -> None:
            self._answered.clear()
            self.asyncio.call_soon_threadsafe(stop)

        # The time runs from here: a loop that some other tool blocks may never come to start this one.
        if call.begin(ask_to_stop):
            self.asyncio.call_soon_threadsafe(start)

    def answers(self) -> bool:
        """Whether it has heard of the last call that was given up; a tool that blocks keeps it from hearing."""
        return self._answered.wait(_ANSWER_SECONDS)


async def _perform(call: ToolCall, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    try:
        value = await work()
    except BaseException as error:
        call.end(None, error)
    else:
        call.end(value, None)


_outstanding: set[ToolCall] = set()


def are_tools_quiet() -> bool:
    """Whether no tool is on its way, save in asyncio code of the user's."""
    return not _outstanding


# Asyncio loops hold their tasks weakly.
_tasks: set[asyncio.Task[None]] = set()
_pool: HostPool | None = None
_loop: _ToolLoop | None = None
_starting = threading.Lock()


def _tool_pool() -> HostPool:
    global _pool
    with _starting:
        if _pool is None:
            _pool = HostPool(MAX_RUNNING)
        return _pool


def _tool_loop() -> _ToolLoop:
    """The loop of async tools; a new one when a tool that was given up blocks the old one."""
    global _loop
    with _starting:
        if _loop is None or not _loop.answers():
            _loop = _ToolLoop()
        return _loop


def _forget() -> None:
    """A forked child has the memory of the threads but not the threads."""
    global _pool, _loop
    _pool = _loop = None
    _outstanding.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
