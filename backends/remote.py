"""Requests to a server: bounded connections, retries, cancellation. What the backends that speak HTTP have in common.

A request is a coroutine on ramify's asyncio loop. At most `max_connections` of them run at once; the others wait as
plain objects, so that thousands of them cost little, and those with a common beginning go together (waiting.py). Events
go to their sinks on the loop thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Generic, Protocol, TypeVar

import msgspec

try:
    import httpx2
except ImportError as error:
    raise ImportError(f"{error}; servers need more packages: pip install 'ramify[openai]'") from error

from ..ir.errors import BackendError, ServerError, UsageError
from ..runtime.backend import Sink
from ..runtime.loop import loop
from ..runtime.pending import Pending
from ..runtime.request import Delta, Done, Event, Failed
from .rates import Rates
from .waiting import Waiting, blocks

T = TypeVar("T")
# Statuses below 500 that say "later", and those from 500 on that say "never".
_LATER = frozenset((408, 429))
_NEVER = frozenset((501, 505))
_DRAIN_SECONDS = 0.5
_CONNECT_SECONDS = 10.0
_TOO_MANY = 429
# So many bytes of a prompt are taken for a token until the server tells how many it was.
_BYTES_A_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Retry:
    """When a request that failed for a passing reason is sent again.

    retries: how often, beyond the first time. The pause doubles from `first` seconds to `longest`, and is shortened by
    up to a half at random. A server's Retry-After is waited for in full; one above `longest` ends the request.
    """

    retries: int = 5
    first: float = 0.5
    longest: float = 60.0

    def pause(self, number: int, asked: float) -> float:
        """Seconds to wait before retry `number` (from 1), where the server asked for `asked` seconds."""
        return asked + min(self.longest, self.first * 2.0 ** (number - 1)) * _random.uniform(0.5, 1.0)


# Of its own: retries must not change what a user's seeded program draws.
_random = random.Random()


class Trouble(Exception):
    """A try of a request failed. passing: another may succeed. retry_after: seconds that the server asked for."""

    def __init__(
        self, message: str, *, passing: bool = False, status: int | None = None, retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.message = message
        self.passing = passing
        self.status = status
        self.retry_after = retry_after

    @classmethod
    def of_status(cls, status: int, message: str, headers: Mapping[str, str]) -> Trouble:
        """The trouble that an HTTP status means."""
        passing = status in _LATER or (status >= 500 and status not in _NEVER)
        return cls(message, passing=passing, status=status, retry_after=retry_after(headers))

    @classmethod
    def of_connection(cls, error: BaseException) -> Trouble:
        """The trouble that an error of the HTTP client means, its own or one that it caused."""
        cause = error.__cause__ if isinstance(error.__cause__, httpx2.TransportError) else error
        name = type(cause).__name__
        if isinstance(cause, httpx2.TimeoutException):
            return cls(f"the server did not answer in time ({name})", passing=True)
        return cls(f"the connection failed: {f'{name}: {cause}' if str(cause) else name}", passing=True)


def retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that a Retry-After header asks for, given as such or as a date; 0 without one that can be read."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """How requests are sent to a server.

    max_connections: so many at a time. retry: see Retry. requests_per_minute, tokens_per_minute: what the server
    allows; None is no limit. head_start: for so many seconds at most the first request with a long beginning goes
    alone, so that those with the same find it in the server's cache; 0 for none. Raises UsageError.
    """

    max_connections: int = 64
    retry: Retry = Retry()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    head_start: float = 0.5

    def __post_init__(self) -> None:
        Rates(self.requests_per_minute, self.tokens_per_minute)
        most = self.max_connections
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise UsageError(f"max_connections is a whole number above 0, got {most!r}")
        if not isinstance(self.head_start, int | float) or not 0 <= self.head_start < float("inf"):
            raise UsageError(f"head_start is a number of seconds from 0 on, got {self.head_start!r}")


class Client(Protocol):
    """What a Remote must be able to do with the client that its requests use."""

    async def close(self) -> None: ...


C = TypeVar("C", bound=Client)


class Call:
    """One request: waits its turn, runs `work(call)`, and tells its sink. Also the handle that cancels it.

    beginning: the blocks that its prompt begins with. tokens: about how many it will use; is_sent: whether the server
    is asked at all. heard: called at its first piece of text.
    """

    __slots__ = (
        "_begun", "_first", "_home", "_sink", "_started", "beginning", "handed_on", "heard", "is_over", "is_sent",
        "task", "tokens", "wants_deltas", "work",
    )  # fmt: skip

    def __init__(
        self,
        work: Callable[[Call], Awaitable[Done]],
        sink: Sink,
        home: asyncio.AbstractEventLoop,
        beginning: tuple[int, ...] = (),
        tokens: int | None = None,
    ) -> None:
        self.work = work
        self.beginning = beginning
        self.tokens = tokens or 0
        self.is_sent = tokens is not None
        self.heard: Callable[[Call], None] | None = None
        self.wants_deltas = sink.wants_deltas
        self.handed_on = False
        self.is_over = False
        self.task: asyncio.Task[Done] | None = None
        self._sink = sink
        self._home = home
        self._begun = self._started = time.perf_counter()
        self._first: float | None = None

    def cancel(self) -> None:
        """See Handle. The connection is closed, which tells the server."""
        self._home.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()
        else:
            self.end(Done("", (), "cancelled"))

    def start(self, task: asyncio.Task[Done]) -> None:
        """Its turn has come."""
        self.task = task
        self._started = time.perf_counter()

    def hand_on(self, delta: Delta) -> None:
        """Give newly generated text to the sink; from now on the request cannot be tried again."""
        if not self.handed_on and self.heard is not None:
            self.heard(self)
        self.handed_on = True
        if self._first is None:
            self._first = time.perf_counter()
        self._tell(delta)

    def end(self, event: Done | Failed) -> None:
        """Send the last event, with the times filled in."""
        if self.is_over:
            return
        if isinstance(event, Done):
            first_ms = None if self._first is None else self._since_begun(self._first)
            queue_ms, wall_ms = self._since_begun(self._started), self._since_begun(time.perf_counter())
            event = replace(event, queue_ms=queue_ms, first_ms=first_ms, wall_ms=wall_ms)
        self._tell(event)
        self.is_over = True

    def _since_begun(self, moment: float) -> float:
        return (moment - self._begun) * 1000

    def _tell(self, event: Event) -> None:
        if not self.is_over:
            loop().soon(self._sink, event)


class Remote(Generic[C]):
    """The way to one server. name: of the backend, for errors. connect: makes the client; called again after a fork."""

    def __init__(self, name: str, connect: Callable[[], C], traffic: Traffic) -> None:
        self.name = name
        self.traffic = traffic
        self.retry = traffic.retry
        self.client = connect()
        self._connect = connect
        self._home: asyncio.AbstractEventLoop | None = None
        self._rates = Rates(traffic.requests_per_minute, traffic.tokens_per_minute)
        self._waiting: Waiting[Call] = Waiting()
        self._running: dict[asyncio.Task[Done], Call] = {}
        self._closing: asyncio.Task[None] | None = None
        self._closed = False

    def send(
        self, work: Callable[[Call], Awaitable[Done]], sink: Sink, prompt: bytes | None = b"", max_tokens: int = 0
    ) -> Call:
        """Run `work` when its turn comes; what it raises other than Trouble is not tried again. Thread-safe.

        prompt: what is sent, in any form in which equal prompts begin equally; None where nothing is sent.
        """
        home = loop().asyncio
        keys = blocks(prompt or b"") if self.traffic.head_start else ()
        tokens = None if prompt is None else len(prompt) // _BYTES_A_TOKEN + max_tokens
        call = Call(work, sink, home, keys, tokens)
        home.call_soon_threadsafe(self._take, call)
        return call

    def close(self) -> None:
        """End everything: requests fail, connections close. Thread-safe."""
        loop().asyncio.call_soon_threadsafe(self._close)

    def _take(self, call: Call) -> None:
        self._settle()
        if self._closed:
            call.end(Failed(self._closed_error()))
            return
        self._waiting.add(call, call.beginning)
        self._fill()

    def _settle(self) -> None:
        """A forked child has the parent's connections and queue, but nobody who serves them."""
        here = asyncio.get_running_loop()
        if self._home is not here:
            if self._home is not None:
                self.client = self._connect()
                self._waiting = Waiting()
                self._running.clear()
                self._rates.forked()
            self._home = here

    def _fill(self) -> None:
        while len(self._running) < self.traffic.max_connections and (call := self._waiting.take()) is not None:
            if call.is_over:
                self._waiting.failed(call)
                continue
            home = asyncio.get_running_loop()
            task = home.create_task(self._serve(call))
            call.start(task)
            self._running[task] = call
            task.add_done_callback(self._finished)
            if self._waiting.is_leading(call):
                call.heard = self._heard
                home.call_later(self.traffic.head_start, self._heard, call)

    def _heard(self, call: Call) -> None:
        """The server has begun to answer, or had time enough to: what waited for that goes on."""
        if self._waiting.is_leading(call):
            self._waiting.answered(call)
            self._fill()

    def _finished(self, task: asyncio.Task[Done]) -> None:
        call = self._running.pop(task)
        if task.cancelled():
            self._waiting.failed(call)
            call.end(Done("", (), "cancelled"))
        elif (error := task.exception()) is not None:
            self._waiting.failed(call)
            call.end(Failed(error))
        else:
            self._waiting.answered(call)
            call.end(task.result())
        self._fill()

    async def _serve(self, call: Call) -> Done:
        """Try until it succeeds, fails for good, or has been tried often enough. Raises ServerError."""
        tries = 1
        while True:
            sent = await self._rates.admit(call.tokens) if call.is_sent else None
            try:
                done = await call.work(call)
            except Trouble as trouble:
                if not self._may_retry(trouble, call, tries):
                    raise self._error(trouble, call, tries) from trouble.__cause__ or trouble
                if trouble.status == _TOO_MANY:
                    self._rates.hold(trouble.retry_after)
                pause = self.retry.pause(tries, trouble.retry_after)
            else:
                if sent is not None:
                    self._rates.correct(sent, done.prompt_tokens + done.generated_tokens)
                return done
            await asyncio.sleep(pause)
            tries += 1

    def _may_retry(self, trouble: Trouble, call: Call, tries: int) -> bool:
        return (
            trouble.passing
            and not call.handed_on
            and tries <= self.retry.retries
            and trouble.retry_after <= self.retry.longest
        )

    def _error(self, trouble: Trouble, call: Call, tries: int) -> ServerError:
        message, help = f"{self.name}: {trouble.message}", None
        if tries > 1:
            message += f" (tried {tries} times)"
        if trouble.retry_after > self.retry.longest:
            help = f"the server asks to wait {trouble.retry_after:.0f} s; run it again then, or give Retry(longest=...)"
        elif trouble.passing and call.handed_on:
            help = "part of the text was streamed already, so it was not asked for again; run it again"
        return ServerError(message, status=trouble.status, help=help)

    def _closed_error(self) -> BackendError:
        return BackendError(f"the backend {self.name!r} is closed")

    def _close(self) -> None:
        if self._closed:
            return
        self._settle()
        self._closed = True
        for call in (*self._running.values(), *self._waiting):
            call.end(Failed(self._closed_error()))
        self._waiting = Waiting()
        for task in self._running:
            task.cancel()
        self._closing = asyncio.get_running_loop().create_task(self._disconnect(list(self._running)))

    async def _disconnect(self, tasks: list[asyncio.Task[Done]]) -> None:
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.client.close()


async def arrived(pending: Pending[T]) -> T:
    """The value of a Pending, waited for on the asyncio loop. Raises the error it ended with."""
    home = asyncio.get_running_loop()
    done = asyncio.Event()
    pending.add_callback(lambda _: home.call_soon_threadsafe(done.set))
    await done.wait()
    return pending.result()


class Answered:
    """A request that was answered before it was sent."""

    def cancel(self) -> None:
        """See Handle. There is nothing to end."""


def tell(done: Done, sink: Sink) -> Answered:
    """Answer a request that need not be sent. Thread-safe."""
    if sink.wants_deltas and done.text:
        loop().soon(sink, Delta(done.text))
    loop().soon(sink, done)
    return Answered()


async def nothing(call: Call) -> Done:
    """The work of a generation of no tokens, which needs no server."""
    return Done("", (), "length")


def timeouts(seconds: float) -> httpx2.Timeout:
    """How long a server may be silent, and to take a connection."""
    return httpx2.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS), pool=None)


def decode(data: bytes | str, kind: type[T], *, is_json: bool = True) -> T:
    """A JSON answer as a record. Raises Trouble, a passing one for broken JSON; is_json: what the server calls it."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise Trouble(f"the server's answer is not what was expected: {error}: {_beginning(data)}") from error
    except msgspec.DecodeError as error:
        raise Trouble(f"the server's answer is not JSON ({error}): {_beginning(data)}", passing=is_json) from error


def _beginning(data: bytes | str) -> str:
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    return repr(text if len(text) <= 200 else text[:200] + "...")


async def server_sent(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of the events of a stream of server-sent events, up to `[DONE]`.

    Lines end in LF or CRLF only: other characters that could end a line may stand within JSON.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            name, _, value = line.rstrip(b"\r").partition(b":")
            if name != b"data":
                continue
            if (value := value.removeprefix(b" ")) == b"[DONE]":
                await _drain(chunks)
                return
            yield value


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read the end of a body, so that its connection can be used again; the answer is complete without it."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in chunks:
                pass
