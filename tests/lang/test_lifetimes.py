"""What the pass `lifetimes` knows of a program reaches the engine, and nothing of it is left behind."""

from __future__ import annotations

from typing import Any

import pytest
import ramify as rf
import torch
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir
from ramify.runtime.request import EngineRequest


@pytest.fixture(scope="module")
def backend():
    opened = LocalBackend(model_dir(), dtype=torch.float32, check=True)
    yield opened
    opened.close()


@rf.program
def talk(s, turns):
    s += "A talk.\n"
    for turn in turns:
        s += turn + rf.gen("reply", max_tokens=4, ignore_eos=True)
    side = s.copy()
    side += "In short:" + rf.gen("short", max_tokens=4, ignore_eos=True)
    s += "At last:" + rf.gen("last", max_tokens=4, ignore_eos=True)
    return side["short"] + s["last"]


def short(name):
    return rf.gen(name, max_tokens=4, ignore_eos=True)


@rf.program
def talk_by_helper(s, turns):
    s += "A talk.\n"
    for turn in turns:
        s += turn + short("reply") + "And again:" + short("again")
    return s["again"]


def keeps(backend: LocalBackend, program: rf.Program, **options: Any) -> list[bool | None]:
    """What the engine is told about each request, in the order of their prompts."""
    told: list[tuple[int, list[int], bool | None]] = []
    engine: Any = backend.engine
    submit = engine.submit

    def watch(request: EngineRequest) -> None:
        assert request.use is not None
        told.append((len(request.token_ids), request.token_ids, request.use.keep))
        submit(request)

    engine.submit = watch
    try:
        program.run(["one", "two"], backend=backend, **options)
    finally:
        engine.submit = submit
    return [keep for *_, keep in sorted(told)]


def test_the_engine_knows_what_is_gone_on_from(backend: LocalBackend) -> None:
    assert keeps(backend, talk) == [True, True, False, False]
    backend.engine.check_idle()


def test_it_knows_of_generations_that_helpers_make(backend: LocalBackend) -> None:
    assert keeps(backend, talk_by_helper) == [True, True, True, True]  # the last turn is not known to be the last
    assert keeps(backend, talk_by_helper.options(disable=["lifetimes"])) == [None] * 4


def test_it_knows_nothing_of_eager_runs_and_without_the_pass(backend: LocalBackend) -> None:
    assert keeps(backend, talk, eager=True) == [None] * 4
    assert keeps(backend, talk.options(disable=["lifetimes"])) == [None] * 4
    backend.engine.check_idle()


@pytest.mark.parametrize("eager", [True, False])
def test_results_are_the_same_when_memory_is_short(backend: LocalBackend, eager: bool) -> None:
    rows = [{"turns": [f"row {row} ", f"goes on {row} "]} for row in range(6)]
    want = [run.value for run in talk.run_batch(rows, backend=backend)]
    small = LocalBackend(model_dir(), dtype=torch.float32, kv_tokens=48, check=True)
    try:
        assert [run.value for run in talk.run_batch(rows, backend=small, eager=eager)] == want
        assert small.stats().evicted_tokens > 0
        small.engine.check_idle()
    finally:
        small.close()
