"""A loopback HTTP server for tests of backends: it answers from the request alone, counts, and fails when told to."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class Reply:
    """One answer: a whole body, or the data of server-sent events. `end` is what becomes of the connection after it.

    "keep": it stays open; "close": closed as is, mid-body for a stream; "reset"; "stall": nothing more comes.
    num_missing: so many bytes more are promised than come.
    """

    body: bytes = b""
    status: int = 200
    events: list[bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    end: Literal["keep", "close", "reset", "stall"] = "keep"
    content_type: str = "application/json"
    num_missing: int = 0


def json_reply(value: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(json.dumps(value).encode(), status, headers={k.replace("_", "-"): v for k, v in headers.items()})


def error_reply(status: int, message: str = "broken", **headers: str) -> Reply:
    return json_reply({"error": {"message": message, "type": "test", "code": None}}, status, **headers)


RESET = Reply(end="reset", status=0)
STALL = Reply(end="stall", status=0)


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


App = Callable[[Asked], Reply]


class StubServer:
    """Serves an app on a loopback port, in a thread of its own, as a context manager.

    fault: called with each request's number (from 0) and content; a Reply that it gives goes out in place of the app's.
    requests: what came, in order. num_connections: how many were opened. max_active: most requests at once.
    hung_up: how often a client closed its connection before its answer was complete. together: so many requests must
    have come before the first is answered.
    """

    def __init__(self, app: App, fault: Callable[[int, Asked], Reply | None] = lambda number, asked: None) -> None:
        self.app = app
        self.fault = fault
        self.requests: list[Asked] = []
        self.num_connections = 0
        self.active = 0
        self.max_active = 0
        self.hung_up = 0
        self.somebody_hung_up = threading.Event()
        self.arrived = threading.Event()
        self.together = 0
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> StubServer:
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    def _stop(self) -> None:
        self._loop.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        self._writers.add(writer)
        try:
            while (asked := await self._read(reader)) is not None:
                self.active += 1
                self.max_active = max(self.max_active, self.active)
                try:
                    if not await self._answer(asked, reader, writer):
                        return
                finally:
                    self.active -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            self._note_hang_up()
        except asyncio.CancelledError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Asked | None:
        line = await reader.readline()
        if not line:
            return None
        method, path, _ = line.decode().split()
        headers = {}
        while (line := await reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        asked = Asked(method, path, headers, json.loads(body) if body else None)
        self.requests.append(asked)
        self.arrived.set()
        return asked

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer; whether the connection goes on."""
        number = len(self.requests) - 1
        reply = self.fault(number, asked) or await asyncio.to_thread(self.app, asked)
        while self.max_active < self.together:
            await asyncio.sleep(0.005)
        if reply.status:
            await self._send(reply, writer)
        if reply.end == "reset":
            _reset(writer)
        elif reply.end == "stall" and not await reader.read(1):
            self._note_hang_up()
        return reply.end == "keep"

    async def _send(self, reply: Reply, writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {reply.status} Status"]
        is_stream = reply.events is not None
        head.append(f"content-type: {'text/event-stream' if is_stream else reply.content_type}")
        head.append(
            "transfer-encoding: chunked" if is_stream else f"content-length: {len(reply.body) + reply.num_missing}"
        )
        head += [f"{name}: {value}" for name, value in reply.headers.items()]
        writer.write("\r\n".join([*head, "", ""]).encode() + reply.body)
        for event in reply.events or ():
            data = b"data: " + event + b"\n\n"
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            await writer.drain()
        if is_stream and reply.end == "keep":
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _note_hang_up(self) -> None:
        self.hung_up += 1
        self.somebody_hung_up.set()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the client sees the connection reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
