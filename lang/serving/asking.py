"""The generations of one HTTP request: asked of the backend, their events brought to the server's event loop.

A backend calls sinks on ramify's loop; the server lives in asyncio. Events cross over many at a time: what has come
while a slow client was written to is taken together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from ...runtime.backend import Backend, Handle
from ...runtime.closing import end_cut
from ...runtime.loop import post
from ...runtime.prompt import Prompt
from ...runtime.request import Delta, Done, Event, Failed, SamplingParams
from ...runtime.uses import Owner, Use
from .errors import Gone


@dataclass(frozen=True, slots=True)
class Wanted:
    """One generation that is asked for."""

    prompt: Prompt
    params: SamplingParams


class _Sink:
    """Takes the events of one generation. See runtime/backend.py."""

    sharing = None

    def __init__(self, asking: Asking, number: int, use: Use) -> None:
        self.wants_deltas = asking.streams
        self.use = use
        self._asking = asking
        self._number = number

    def __call__(self, event: Event) -> None:
        self._asking.put(self._number, event)


class Asking:
    """Generations that run together. streams: whether their text is wanted as it grows."""

    def __init__(self, backend: Backend, wanted: Iterable[Wanted], *, streams: bool) -> None:
        """On the event loop that its events come to."""
        self.streams = streams
        self.is_cancelled = False
        self._backend = backend
        self._wanted = list(wanted)
        self._owner = Owner()
        self._handles: list[Handle] = []
        self._home = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._events: deque[tuple[int, Event]] = deque()
        self._is_told = False
        post(self._begin)

    def _begin(self) -> None:
        """On ramify's loop."""
        for number, wanted in enumerate(self._wanted):
            sink = _Sink(self, number, Use(self._owner, None, False))
            if self.is_cancelled:
                sink(Done("", (), "cancelled"))
                continue
            try:
                self._handles.append(self._backend.generate(wanted.prompt, wanted.params, sink))
            except Exception as error:
                sink(Failed(error))

    def put(self, number: int, event: Event) -> None:
        """An event of a generation has come. On ramify's loop."""
        self._events.append((number, event))
        if not self._is_told:
            self._is_told = True
            with suppress(RuntimeError):  # the server is gone
                self._home.call_soon_threadsafe(self._ready.set)

    def cancel(self) -> None:
        """Nobody wants the rest. Every generation still sends its last event. Thread-safe."""
        self.is_cancelled = True
        post(self._cancel)

    def _cancel(self) -> None:
        for handle in self._handles:
            handle.cancel()

    async def events(self) -> AsyncGenerator[tuple[int, Delta | Done]]:
        """Each generation's number and what became of it, until all have ended.

        Raises what the first failed with, Gone if nobody wants the rest.
        """
        missing, error = len(self._wanted), None
        try:
            while missing:
                await self._ready.wait()
                self._ready.clear()
                self._is_told = False
                while self._events:
                    number, event = self._events.popleft()
                    missing -= not isinstance(event, Delta)
                    if isinstance(event, Failed):
                        error = error or event.error
                        self.cancel()
                    elif error is None and not self.is_cancelled:
                        yield number, await self._ended(number, event)
        except BaseException:
            self.cancel()
            raise
        finally:
            self._owner.end()
        if error is not None:
            raise error
        if self.is_cancelled:
            raise Gone

    async def _ended(self, number: int, event: Delta | Done) -> Delta | Done:
        """The event; of a text that max_tokens has cut off with an end, if the request wants one."""
        params = self._wanted[number].params
        if not params.close or params.constraint is None or isinstance(event, Delta) or event.finish_reason != "length":
            return event
        return await asyncio.to_thread(partial(end_cut, event, params.constraint, close=True))

    async def all(self) -> list[Done]:
        """What the generations came to, in their order. Raises what the first failed with, Gone if it was cancelled."""
        found = {number: event async for number, event in self.events() if isinstance(event, Done)}
        return [found[number] for number in range(len(self._wanted))]
