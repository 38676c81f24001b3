"""One HTTP request and its response: the body within its bounds, and an answer, whole or as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .errors import ApiError
from .settings import Settings

_DONE = b"data: [DONE]\n\n"
_EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class Exchange:
    """A request and its response. body: what `read` has read. status: what was answered; 0 before that."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.request = Request(scope, receive)
        self.body = b""
        self.status = 0
        self._scope = scope
        self._receive = receive
        self._send = send

    async def read(self, settings: Settings) -> None:
        """Read the body. Raises ApiError for one that is too long or slow, ClientDisconnect for one that breaks off."""
        too_long = ApiError(413, f"the body has more than {settings.max_body:,} bytes, which this server does not take")
        length = self.request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > settings.max_body:
            raise too_long
        parts, size = [], 0
        try:
            async with asyncio.timeout(settings.body_seconds):
                async for part in self.request.stream():
                    size += len(part)
                    if size > settings.max_body:
                        raise too_long
                    parts.append(part)
        except TimeoutError:
            raise ApiError(408, f"the body did not arrive within {settings.body_seconds:g} s") from None
        self.body = b"".join(parts)

    @asynccontextmanager
    async def watched(self, on_gone: Callable[[], object]) -> AsyncIterator[None]:
        """Calls back if the client goes away while this is entered; the body must have been read."""
        watch = asyncio.ensure_future(self._gone(on_gone))
        try:
            yield
        finally:
            watch.cancel()

    async def _gone(self, on_gone: Callable[[], object]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        on_gone()

    async def answer(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole answer as JSON."""
        await self.send(msgspec.json.encode(value), "application/json", status, headers)

    async def send(
        self, content: bytes, media_type: str, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole answer."""
        self.status = status
        response = Response(content, status, dict(headers or {}), media_type)
        await response(self._scope, self._receive, self._send)

    async def refuse(self, error: ApiError) -> None:
        """Send an error, in place of an answer or, where one has begun, as its last event."""
        if not self.status:
            await self.answer(error.body(), error.status, error.headers)
            return
        await self._part(_event(error.body()))
        await self._part(b"", more=False)

    async def stream(self, values: AsyncGenerator[Any]) -> None:
        """Send values as server-sent events, and "[DONE]" at the end. The first comes before anything is sent."""
        async with aclosing(values):
            async for value in values:
                if not self.status:
                    await self._begin_stream()
                await self._part(_event(value))
        await self._part(_DONE, more=False)

    async def _begin_stream(self) -> None:
        self.status = 200
        await self._send({"type": "http.response.start", "status": 200, "headers": _EVENT_STREAM})

    async def _part(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


__all__ = ["ClientDisconnect", "Exchange"]
