"""What a streamed run says while it goes on, for iterators on any thread and in any event loop.

A Stream keeps all events; iterators read it at their own pace and are woken when there is more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ...ir.errors import Cancelled
from ...runtime.context import Context
from ...runtime.generation import Generation, StreamEvent
from ...runtime.pending import Pending, blocking
from ..run import Run

_MAIN: tuple[int, ...] = ()


class Stream:
    """The events of one run so far; called with each, on any thread."""

    def __init__(self) -> None:
        self.events: list[StreamEvent] = []
        self._listeners: list[Callable[[], object]] = []

    def __call__(self, event: StreamEvent) -> None:
        self.events.append(event)
        self.wake()

    def wake(self, _: object = None) -> None:
        """There is something new."""
        for listener in tuple(self._listeners):
            listener()

    @contextmanager
    def woken(self, listener: Callable[[], object]) -> Iterator[None]:
        """Have a function called, on any thread, whenever there is something new."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)


class Reader(Protocol):
    """Reads one text of a run: `new` gives what has come since the last time, `rest` what is left once `is_over`."""

    def is_over(self) -> bool: ...
    def new(self) -> Iterator[Any]: ...
    def rest(self) -> Iterator[Any]: ...


class TextReader:
    """The text of the run's first state."""

    def __init__(self, stream: Stream, outcome: Pending[Run]) -> None:
        self._events = stream.events
        self._outcome = outcome
        self._next = 0
        self._num_characters = 0

    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self._outcome.done

    def new(self) -> Iterator[str]:
        """What the text has grown by."""
        for event in self._events[self._next :]:
            self._next += 1
            if event.branch == _MAIN and event.written:
                self._num_characters += len(event.written)
                yield event.written

    def rest(self) -> Iterator[str]:
        """The end of the text that no event told of. Raises what the run ended with."""
        run = self._outcome.result()
        if text := run.text[self._num_characters :]:
            yield text
        if run.error is not None:
            raise run.error


class VariableReader:
    """The pieces of the first generation of a variable in the run's first state; with_meta: (piece, facts) of each."""

    def __init__(
        self, stream: Stream, context: Context, outcome: Pending[Run], name: str, *, with_meta: bool = False
    ) -> None:
        self._stream = stream
        self._context = context
        self._outcome = outcome
        self._name = name
        self._with_meta = with_meta
        self._generation: Generation | None = None
        self._next = 0
        self._num_characters = 0
        self._num_tokens = 0

    def is_over(self) -> bool:
        """Whether the generation has ended, or the run without one."""
        if self._generation is None:
            is_over = self._outcome.done
            self._generation = self._find()
            if self._generation is None:
                return is_over
            self._generation.pending.add_callback(self._stream.wake)
        return self._generation.pending.done

    def new(self) -> Iterator[Any]:
        """The pieces that have come since."""
        heard = () if self._generation is None else self._generation.heard[self._next :]
        for delta in heard:
            self._next += 1
            self._num_tokens += len(delta.token_ids)
            if delta.text:
                self._num_characters += len(delta.text)
                yield self._item(delta.text, {"completion_tokens": self._num_tokens, "finish_reason": None})

    def rest(self) -> Iterator[Any]:
        """The value that did not come in pieces, and at last the facts of the whole. Raises what it failed with."""
        text, meta = self._whole()
        rest = text[self._num_characters :]
        if rest or self._with_meta:
            yield self._item(rest, meta)

    def _whole(self) -> tuple[str, dict[str, Any]]:
        if self._generation is not None:
            return self._generation.pending.result().text, self._generation.own_meta_info()
        return str(value_of(self._outcome.result(), self._name)), {}

    def _item(self, text: str, meta: dict[str, Any]) -> Any:
        return (text, meta) if self._with_meta else text

    def _find(self) -> Generation | None:
        for generation in tuple(self._context.calls):
            expression = generation.expression
            if (expression.name, generation.prompt.branch) == (self._name, _MAIN) and expression.kind != "score":
                return generation
        return None


def value_of(run: Run, name: str) -> Any:
    """A variable's value. Where it is missing because the run failed, what made it fail is raised."""
    if run.error is None or name in run:
        return run[name]
    held = run.state.prompt.names().get(name)
    value = held.bound_value() if held is not None else None
    if isinstance(value, Pending) and value.done and not isinstance(value.error, Cancelled):
        return value.result()
    raise run.error


def iterate(stream: Stream, reader: Reader) -> Iterator[Any]:
    """All items of a reader, waiting for them on this thread."""
    woken = threading.Event()
    with stream.woken(woken.set):
        while True:
            woken.clear()
            is_over = reader.is_over()
            yield from reader.new()
            if is_over:
                break
            with blocking():
                woken.wait()
    yield from reader.rest()


async def iterate_async(stream: Stream, reader: Reader) -> AsyncIterator[Any]:
    """All items of a reader, waiting for them in the caller's event loop."""
    woken, here = asyncio.Event(), asyncio.get_running_loop()
    with stream.woken(lambda: _set_there(here, woken)):
        while True:
            woken.clear()
            is_over = reader.is_over()
            for item in reader.new():
                yield item
            if is_over:
                break
            await woken.wait()
    for item in reader.rest():
        yield item


def _set_there(home: asyncio.AbstractEventLoop, woken: asyncio.Event) -> None:
    """Set an event of another loop; one that is closed by now waits for nothing."""
    try:
        home.call_soon_threadsafe(woken.set)
    except RuntimeError:
        if not home.is_closed():
            raise
