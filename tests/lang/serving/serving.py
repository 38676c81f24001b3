"""What the tests of the server share: a server on a loopback port, clients, and an engine that waits."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import openai
from ramify.backends import open_backend
from ramify.backends.local import LocalBackend
from ramify.lang.serving.server import Server
from ramify.lang.serving.settings import Settings

QUESTION: list[Any] = [{"role": "user", "content": "What is 3 + 4?"}]


def tiny() -> LocalBackend:
    return cast(LocalBackend, open_backend("tiny"))


@contextmanager
def serving(**settings: Any) -> Iterator[Server]:
    with Server(tiny(), Settings(port=0, **settings)) as server:
        yield server


def client(server: Server, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60)


def open_socket(server: Server) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def request_bytes(path: str, body: Any) -> bytes:
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so; a minute is for ever."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


@contextmanager
def engine_waits() -> Iterator[None]:
    """The engine does nothing while this is entered."""
    engine, go_on, waits = tiny().engine, threading.Event(), threading.Event()

    def hold() -> None:
        waits.set()
        assert go_on.wait(60)

    holder = threading.Thread(target=engine._on_engine, args=(hold,))
    holder.start()
    assert waits.wait(60)
    try:
        yield
    finally:
        go_on.set()
        holder.join()
