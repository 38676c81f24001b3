"""A proxy before a server that breaks answers, in ways that a seed decides: what networks and busy servers do."""

from __future__ import annotations

import http.client
import json
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from .stub import RESET, STALL, Asked, Reply, StubServer, error_reply

Break = Callable[[Reply], Reply]


def half(reply: Reply, end: str) -> Reply:
    """The first half of an answer, and then `end`."""
    if reply.events is not None:
        return replace(reply, events=reply.events[: len(reply.events) // 2], end=end)  # type: ignore[arg-type]
    middle = len(reply.body) // 2
    return replace(reply, body=reply.body[:middle], num_missing=len(reply.body) - middle, end=end)  # type: ignore[arg-type]


def _with_garbage(reply: Reply) -> Reply:
    if reply.events is not None:
        return replace(reply, events=[b'{"choices": [{"index"'], end="close")
    return replace(reply, body=b"\x00\xff" + reply.body[5:])


# By name: what becomes of an answer. Each is a passing fault, but for one in the middle of a stream.
BREAKS: dict[str, Break] = {
    "reset": lambda reply: RESET,
    "stall": lambda reply: STALL,
    "closed": lambda reply: Reply(end="close", status=0),
    "half, then closed": lambda reply: half(reply, "close"),
    "half, then reset": lambda reply: half(reply, "reset"),
    "half, then silence": lambda reply: half(reply, "stall"),
    "garbage": _with_garbage,
    "429": lambda reply: error_reply(429, "slow down", retry_after="0.01"),
    "503 of a gateway": lambda reply: Reply(b"<html>busy</html>", 503, content_type="text/html"),
}


class FaultyProxy(StubServer):
    """Forwards to the server at `upstream` and breaks a share of the answers; of one request at most `most` in a row.

    broken: how often each way was used.
    """

    def __init__(self, upstream: str, seed: int, share: float = 0.4, most: int = 3) -> None:
        super().__init__(self._forward)
        self.broken: Counter[str] = Counter()
        self._upstream = urlsplit(upstream)
        self._seed = seed
        self._choosing = threading.Lock()
        self._share = share
        self._most = most
        self._in_a_row: Counter[str] = Counter()

    def _forward(self, asked: Asked) -> Reply:
        assert self._upstream.hostname is not None
        connection = http.client.HTTPConnection(self._upstream.hostname, self._upstream.port, timeout=30)
        body = None if asked.body is None else json.dumps(asked.body)
        connection.request(asked.method, asked.path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        data, kind = response.read(), response.getheader("content-type", "")
        connection.close()
        reply = Reply(data, response.status, content_type=kind)
        if "event-stream" in kind:
            lines = (line.removeprefix(b"data: ") for line in data.split(b"\n\n"))
            reply = Reply(events=[line for line in lines if line])
        return self._broken(asked, reply)

    def _broken(self, asked: Asked, reply: Reply) -> Reply:
        with self._choosing:
            key = json.dumps(asked.body)
            drawn = zlib.crc32(f"{self._seed} {self._in_a_row[key]} {key}".encode()) / 2**32
            if self._in_a_row[key] >= self._most or drawn >= self._share:
                self._in_a_row[key] = 0
                return reply
            self._in_a_row[key] += 1
            name = list(BREAKS)[self.broken.total() % len(BREAKS)]
            self.broken[name] += 1
        return BREAKS[name](reply)
