"""An HTTP transport for many connections: one pool for each, so that a request does not have to look at all of them.

The client's own pool goes through every connection whenever a request begins or ends, which at 256 connections takes
several times as long as the request itself. Here a request takes the lane that was free last, so one that is
connected; how many there are is up to who sends the requests (remote.py).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.request import getproxies

import httpx2

_ONE = httpx2.Limits(max_connections=1, max_keepalive_connections=1)


def connecting(max_connections: int, *, is_plain: bool) -> dict[str, Any]:
    """The arguments of an HTTP client whose requests wait for their turn elsewhere.

    is_plain: certificates, which are slow to load, are not needed. Where the environment names a proxy, the client's
    own pool serves, which knows about proxies.
    """
    if getproxies():
        limits = httpx2.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
        return {"limits": limits, "verify": not is_plain}
    return {"transport": Lanes(is_plain=is_plain)}


class Lanes(httpx2.AsyncBaseTransport):
    """As many connections as requests are under way at a time."""

    def __init__(self, *, is_plain: bool) -> None:
        self._verify: ssl.SSLContext | bool = not is_plain and httpx2.create_ssl_context()
        self._all: list[httpx2.AsyncHTTPTransport] = []
        self._free: list[httpx2.AsyncHTTPTransport] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request on a lane of its own, which is free again when the response is closed."""
        lane = self._free.pop() if self._free else self._new()
        try:
            response = await lane.handle_async_request(request)
        except BaseException:
            self._free.append(lane)
            raise
        response.stream = _Stream(cast(httpx2.AsyncByteStream, response.stream), self._free, lane)
        return response

    async def aclose(self) -> None:
        """Close every connection."""
        for lane in self._all:
            await lane.aclose()

    def _new(self) -> httpx2.AsyncHTTPTransport:
        lane = httpx2.AsyncHTTPTransport(verify=self._verify, limits=_ONE)
        self._all.append(lane)
        return lane


class _Stream(httpx2.AsyncByteStream):
    """A response's body, whose end gives the lane back."""

    def __init__(
        self, body: httpx2.AsyncByteStream, free: list[httpx2.AsyncHTTPTransport], lane: httpx2.AsyncHTTPTransport
    ) -> None:
        self._body = body
        self._free = free
        self._lane: httpx2.AsyncHTTPTransport | None = lane

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            yield chunk

    async def aclose(self) -> None:
        """Close the response; its connection is for others then."""
        try:
            await self._body.aclose()
        finally:
            if self._lane is not None:
                self._free.append(self._lane)
                self._lane = None
