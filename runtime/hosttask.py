"""Where the host code of `async def` programs runs: in one asyncio task per run, as Python has it.

The program's ops run on ramify's loop as ever. What is host code, with all its awaits, is handed to the task, call by
call: on the caller's event loop under `arun`, else on a loop of the run's own. So `asyncio.current_task()`, timeouts
and context variables mean what they mean in a coroutine, and nothing else of that event loop runs in a call's middle.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from .context import Context, running
from .host import Escaped
from .loop import post
from .pending import Pending

T = TypeVar("T")
_Job = tuple[Callable[..., Any], tuple[Any, ...], bool, Pending[Any]]


class HostTask:
    """The asyncio side of one run, or of a strand of it. `home` is the event loop that its calls are made on.

    cancelled: called on ramify's loop when the task is cancelled while it waits for the program.
    """

    def __init__(
        self, home: asyncio.AbstractEventLoop, context: Context, cancelled: Callable[[BaseException], object]
    ) -> None:
        self._home = home
        self._context = context
        self._cancelled = cancelled
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None
        self._num_cancels = 0
        self._is_busy = False
        self._is_dropping = False

    def call(self, function: Callable[..., Any], *args: Any) -> Pending[Any]:
        """Call host code in the task. Thread-safe."""
        return self._submit(function, args, is_awaited=False)

    def run(self, function: Callable[..., Any], *args: Any) -> Pending[Any]:
        """Call a coroutine function in the task and await what it gives. Thread-safe."""
        return self._submit(function, args, is_awaited=True)

    def _submit(self, function: Callable[..., Any], args: tuple[Any, ...], is_awaited: bool) -> Pending[Any]:
        pending: Pending[Any] = Pending()
        try:
            self._home.call_soon_threadsafe(self._arrive, (function, args, is_awaited, pending))
        except RuntimeError as error:  # the event loop is closed
            pending.set_error(error)
        return pending

    def _arrive(self, job: _Job) -> None:
        self._jobs.append(job)
        self._arrived.set()

    def drop(self) -> None:
        """Cancel the call that is being made, whose result nobody waits for any more. Thread-safe."""
        self._tell(self._drop)

    def _drop(self) -> None:
        self._jobs.clear()
        if self._is_busy and not self._is_dropping and self._task is not None:
            self._is_dropping = True
            self._task.cancel()

    def _tell(self, callback: Callable[[], object]) -> None:
        try:
            self._home.call_soon_threadsafe(callback)
        except RuntimeError:
            if not self._home.is_closed():
                raise

    def start(self, outcome: Pending[T], ended: Callable[[], object]) -> None:
        """Serve a run as a task of its own, with the run's context variables. Thread-safe."""

        def begin() -> None:
            task = self._home.create_task(self.serve(outcome))
            task.add_done_callback(lambda _: ended())

        self._home.call_soon_threadsafe(begin, context=self._context.host_context.copy())

    async def serve(self, outcome: Pending[T]) -> None:
        """Make the calls of a run until it ends. On cancellation the program is told, and may still clean up."""
        self._task = asyncio.current_task()
        assert self._task is not None
        self._num_cancels = self._task.cancelling()
        outcome.add_callback(lambda _: self._tell(self._arrived.set))
        outer = running.set(self._context)
        try:
            while not outcome.done:
                await self._serve_some()
        except GeneratorExit:  # nobody awaits this any more
            post(self._cancelled, asyncio.CancelledError())
            raise
        running.reset(outer)

    async def _serve_some(self) -> None:
        try:
            await self._arrived.wait()
        except asyncio.CancelledError as error:
            self._meet(error)
            return
        self._arrived.clear()
        while self._jobs:
            await self._make(*self._jobs.popleft())

    def _meet(self, error: asyncio.CancelledError) -> None:
        """The task was cancelled while the program did something else than waiting for it."""
        assert self._task is not None
        if self._task.cancelling() > self._num_cancels:  # else it is what is left of dropping a call
            self._num_cancels = self._task.cancelling()
            post(self._cancelled, error)

    async def _make(
        self, function: Callable[..., Any], args: tuple[Any, ...], is_awaited: bool, pending: Pending[Any]
    ) -> None:
        self._is_busy = True
        try:
            result = await function(*args) if is_awaited else function(*args)
        except StopIteration as error:
            post(pending.set_error, Escaped(error))
        except BaseException as error:
            post(pending.set_error, error)
        else:
            post(pending.set_result, result)
        finally:
            self._is_busy = False
            self._forget_cancels()

    def _forget_cancels(self) -> None:
        """Those that a call has met are its own affair, and the one that dropped it was ours."""
        assert self._task is not None
        if self._is_dropping:
            self._is_dropping = False
            self._task.uncancel()
        self._num_cancels = self._task.cancelling()


class PrivateLoop:
    """An asyncio loop on a thread of its own, for runs that nobody awaits. It ends as that of asyncio.run does."""

    def __init__(self) -> None:
        self.asyncio = asyncio.new_event_loop()
        self.ended: Pending[None] = Pending()
        self._is_ending = False
        threading.Thread(target=self._serve, name="ramify-async", daemon=True).start()

    def end(self) -> None:
        """Cancel what is left on the loop, and close it; `ended` says when. Thread-safe."""
        self._is_ending = True
        self.asyncio.call_soon_threadsafe(self.asyncio.stop)

    def __enter__(self) -> asyncio.AbstractEventLoop:
        return self.asyncio

    def __exit__(self, *_: object) -> None:
        self.end()
        self.ended.wait()

    def _serve(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self.asyncio) as runner:
                while not self._is_ending:
                    try:
                        runner.get_loop().run_forever()
                    except (KeyboardInterrupt, SystemExit):  # of a task; whoever awaits it sees it too
                        continue
        finally:
            post(self.ended.set_result, None)
