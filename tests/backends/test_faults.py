"""Servers behind a proxy that breaks answers: nothing hangs, no row is lost, none comes twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends.openai import OpenAI
from ramify.backends.remote import Retry
from ramify.ir.errors import ServerError
from ramify.runtime.generation import StreamEvent

from .proxy import BREAKS, FaultyProxy
from .stub import Asked, Reply, StubServer, error_reply
from .stub_openai import expected, openai_app

PATIENT = Retry(retries=8, first=0.01, longest=2.0)


@rf.program
def ask(s: rf.State, question: str) -> Any:
    s += rf.system("Be brief.") + rf.user(question)
    s += rf.assistant(rf.gen("x"))
    return s["x"]


def answer(question: str) -> str:
    return expected(f"<system>Be brief.<user>{question}")[0]


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer(openai_app) as server:
        yield server


def connected(url: str, **options: Any) -> OpenAI:
    return OpenAI("m", base_url=f"{url}/v1", **{"retry": PATIENT, "timeout": 0.3, **options})


@pytest.mark.parametrize("eager", [True, False])
def test_every_row_comes_once_whatever_the_network_does(server: StubServer, tmp_path: Path, eager: bool) -> None:
    rows = [{"question": f"question {number}"} for number in range(80)]
    out = tmp_path / "out.jsonl"
    with FaultyProxy(server.url, seed=eager) as proxy:
        backend = connected(proxy.url, max_connections=32)
        runs = list(ask.run_batch(rows, backend=backend, eager=eager, out=out, timeout=60.0))
        backend.close()
    assert [run.error for run in runs if run.error] == []
    assert [run.value for run in runs] == [answer(row["question"]) for row in rows]
    assert all(len(run.trace) == 1 and run.usage.calls == 1 for run in runs)
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(line["row"] for line in written if "value" in line) == list(range(80))
    assert set(proxy.broken) == set(BREAKS), "every fault was tried"


def test_a_stream_is_whole_or_an_error_and_is_never_told_twice(server: StubServer) -> None:
    whole, failed = 0, 0
    with FaultyProxy(server.url, seed=3) as proxy:
        backend = connected(proxy.url, max_connections=32)
        for number in range(24):
            events: list[StreamEvent] = []
            try:
                ask.run(f"question {number}", backend=backend, stream=events.append, timeout=60.0)
                whole += 1
            except ServerError as error:
                assert error.help is not None and "streamed already" in error.help
                failed += 1
            told = "".join(event.text for event in events if event.kind == "gen")
            assert answer(f"question {number}").startswith(told)
        backend.close()
    assert whole and failed and proxy.broken


def test_a_storm_of_429_passes(server: StubServer) -> None:
    def storm(number: int, asked: Asked) -> Reply | None:
        return error_reply(429, "slow down", retry_after="0.05") if number < 40 else None

    server.fault = storm
    backend = connected(server.url, max_connections=32)
    rows = [{"question": f"question {number}"} for number in range(80)]
    runs = ask.run_batch(rows, backend=backend, timeout=60.0)
    assert [run.value for run in runs] == [answer(row["question"]) for row in rows]
    assert len(server.requests) == 120, "each was refused, or answered once"
    backend.close()


def test_a_storm_without_end_is_an_error_of_each_row(server: StubServer) -> None:
    server.fault = lambda number, asked: error_reply(429, "slow down", retry_after="0")
    backend = connected(server.url, retry=Retry(retries=2, first=0.0), max_connections=8)
    runs = ask.run_batch([{"question": str(number)} for number in range(20)], backend=backend, timeout=60.0)
    assert all("slow down (tried 3 times)" in str(run.error) for run in runs) and len(runs) == 20
    assert len(server.requests) == 60
    backend.close()
