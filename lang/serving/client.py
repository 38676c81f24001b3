"""Programs of this process run on a server elsewhere (`ramify serve`): compiled here, sent, and run there."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from typing import Any

from ...ir.errors import ServerError, UsageError
from ...runtime.generation import StreamEvent
from ..compiled import Compiled
from ..plain import plain
from ..records import recorded_run
from ..run import Run
from .programs import signature_of


def run_on(
    url: str,
    compiled: Compiled,
    arguments: Mapping[str, Any],
    *,
    api_key: str | None = None,
    program_key: str | None = None,
    sampling: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    stream: Callable[[StreamEvent], object] | None = None,
) -> Run:
    """Run a program on the server at `url`, and wait. The run has what JSON says of its value and variables.

    arguments: values of JSON. api_key: that of the server, if it asks for one. program_key: signs the program, which
    one with Python in it needs. sampling: what its gens do not say. timeout: seconds for the run. stream: called with
    each StreamEvent. Raises UsageError, CompileError for a program that cannot travel, ServerError for a refusal.
    """
    data = compiled.saved()
    body = {
        "module": base64.b64encode(data).decode(),
        "arguments": plain(arguments),
        "sampling": dict(sampling or {}),
        "timeout": timeout,
        "stream": stream is not None,
    }
    if program_key is not None:
        body["signature"] = signature_of(data, program_key)
    for answer in _answers(url, body, api_key):
        if "error" in answer and "value" not in answer and "run" not in answer:
            raise ServerError(f"the server failed: {answer['error']['message']}")
        if "event" in answer and stream is not None:
            stream(StreamEvent(**{**answer["event"], "branch": tuple(answer["event"]["branch"])}))
        elif "event" not in answer:
            return recorded_run(answer.get("run", answer), None)
    raise ServerError(f"the answer of the server at {url} broke off before its end")


def _answers(url: str, body: Mapping[str, Any], api_key: str | None) -> Iterator[dict[str, Any]]:
    """The answer, or the events of a stream. Raises ServerError, UsageError."""
    headers = {"content-type": "application/json"}
    if api_key is not None:
        headers["authorization"] = f"Bearer {api_key}"
    place = url.rstrip("/").removesuffix("/v1") + "/v1/programs"
    if not place.startswith(("http://", "https://")):
        raise UsageError(f"{url!r} is no address of a server", help="it is like http://127.0.0.1:8000")
    request = urllib.request.Request(place, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request) as response:
            if not body["stream"]:
                yield json.load(response)
                return
            for line in response:
                data = line.strip().removeprefix(b"data: ")
                if data and data != b"[DONE]":
                    yield json.loads(data)
    except urllib.error.HTTPError as error:
        with error:
            raise ServerError(
                f"the server at {url} answered {error.code}: {_message(error)}", status=error.code
            ) from error
    except (OSError, HTTPException, ValueError) as error:
        raise ServerError(f"the server at {url} did not answer as one should: {error}") from error


def _message(error: urllib.error.HTTPError) -> str:
    text = error.read().decode("utf-8", "replace")
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text[:500]
