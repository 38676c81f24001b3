"""Clients that are too many, too slow, gone or strangers; and the server's end."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import ExitStack
from http.client import HTTPResponse
from typing import Any

import openai
import pytest
from ramify.ir.errors import UsageError
from ramify.lang.serving.server import Server

from .serving import QUESTION, client, engine_waits, open_socket, request_bytes, serving, tiny, wait_for

LONG = {"model": "tiny", "prompt": "The dog", "max_tokens": 1500, "ignore_eos": True, "stream": True}


def answered(link: socket.socket) -> tuple[int, Any]:
    """The status and the JSON of the next answer on a connection."""
    with HTTPResponse(link) as response:
        response.begin()
        return response.status, json.loads(response.read())


def test_keys() -> None:
    with serving(api_keys=("first", "second")) as server:
        for key in ("first", "second"):
            with client(server, key) as api:
                assert [model.id for model in api.models.list()] == ["tiny"]
        with client(server, "third") as api, pytest.raises(openai.AuthenticationError) as caught:
            api.models.list()
        assert caught.value.code == "invalid_api_key"
        with open_socket(server) as link:
            link.sendall(b"GET /health HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            assert answered(link)[0] == 200


def test_a_path_that_there_is_not() -> None:
    with serving() as server, client(server) as api, pytest.raises(openai.NotFoundError) as caught:
        api.get("/nothing", cast_to=object)
    assert "/v1/nothing" in caught.value.message


def test_a_client_that_goes_cancels_its_request() -> None:
    with serving() as server:
        with open_socket(server) as link:
            link.sendall(request_bytes("/v1/completions", LONG))
            assert b"200 OK" in link.recv(64)
        wait_for(lambda: server.service.metrics.num_disconnected == 1)
        with engine_waits(), open_socket(server) as link:
            link.sendall(request_bytes("/v1/completions", LONG | {"stream": False}))
            wait_for(lambda: tiny().stats().waiting > 0)
        wait_for(lambda: server.service.metrics.num_disconnected == 2)
        assert server.service.metrics.num_active == 0
    wait_for(lambda: tiny().stats().running == 0)
    tiny().engine.check_idle()


def test_beyond_its_room_a_server_says_so() -> None:
    with serving(max_requests=1) as server, client(server) as api:
        with engine_waits():
            held = threading.Thread(target=lambda: api.completions.create(model="tiny", prompt="The", max_tokens=2))
            held.start()
            wait_for(lambda: server.service.metrics.num_active == 1)
            with pytest.raises(openai.RateLimitError) as caught:
                api.completions.create(model="tiny", prompt="The", max_tokens=2)
            assert caught.value.response.headers["retry-after"] == "1"
            assert [model.id for model in api.models.list()] == ["tiny"]
        held.join()
        assert api.completions.create(model="tiny", prompt="The", max_tokens=2).choices[0].text is not None


def test_bodies_that_are_too_long_or_do_not_come() -> None:
    with serving(max_body=500, body_seconds=0.3, max_requests=1) as server:
        whole = request_bytes("/v1/completions", LONG)
        with open_socket(server) as link, open_socket(server) as gone:
            gone.sendall(whole[:-20])
            gone.close()
            link.sendall(whole[:-20])
            assert answered(link)[0] == 408
        with open_socket(server) as link:
            link.sendall(request_bytes("/v1/completions", LONG | {"prompt": "x" * 600}))
            assert answered(link)[0] == 413
        with open_socket(server) as link:
            chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
            link.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
            assert answered(link)[0] == 413
        with open_socket(server) as link:
            link.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\n{]}")
            status, error = answered(link)
            assert status == 400 and "not JSON" in error["error"]["message"]
        wait_for(lambda: server.service.metrics.num_disconnected == 1)


def test_a_thousand_connections() -> None:
    ask = request_bytes("/v1/completions", {"model": "tiny", "prompt": "The dog", "max_tokens": 2, "temperature": 0})
    look = b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n"
    with serving() as server, ExitStack() as held:
        links = [held.enter_context(open_socket(server)) for _ in range(1000)]
        for number, link in enumerate(links):
            link.sendall(look if number % 10 else ask)
        answers = [answered(link) for link in links]
    assert {status for status, _ in answers} == {200}
    assert len({answer["choices"][0]["text"] for _, answer in answers[::10]}) == 1


def test_a_server_that_ends_finishes_what_it_has() -> None:
    texts: list[str] = []
    with serving() as server, client(server) as api:
        closing = threading.Thread(target=server.close)
        with engine_waits():
            answer = threading.Thread(
                target=lambda: texts.append(
                    str(api.chat.completions.create(model="tiny", messages=QUESTION).choices[0].message.content)
                )
            )
            answer.start()
            wait_for(lambda: tiny().stats().waiting > 0)
            closing.start()
            wait_for(lambda: not is_listening(server))
        answer.join()
        closing.join()
    assert len(texts) == 1


def is_listening(server: Server) -> bool:
    try:
        open_socket(server).close()
    except ConnectionError:
        return False
    return True


def test_a_port_that_is_taken() -> None:
    with serving() as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(UsageError, match=f"port {port}"):
            Server(tiny(), server.settings.__class__(port=port))


def test_metrics_are_whole() -> None:
    with serving() as server, client(server) as api:
        api.completions.create(model="tiny", prompt="The", max_tokens=2)
        with pytest.raises(openai.BadRequestError):
            api.completions.create(model="tiny", prompt="The", max_tokens=-2)
        with open_socket(server) as link:
            link.sendall(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            text = link.makefile("rb").read().decode()
    assert 'ramify_requests_total{path="/v1/completions",status="200"} 1\n' in text
    assert 'ramify_requests_total{path="/v1/completions",status="400"} 1\n' in text
    assert "ramify_generated_tokens_total 2\n" in text
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    samples = {line.split("{")[0].split()[0] for line in text.partition("\r\n\r\n")[2].splitlines() if line[0] != "#"}
    suffixes = ("_bucket", "_sum", "_count")
    assert {next((s.removesuffix(x) for x in suffixes if s.endswith(x)), s) for s in samples} == names
