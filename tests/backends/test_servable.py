"""`ramify check --backend`: what a server would refuse is told beforehand, and what is told is refused by a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends import describe_backend
from ramify.backends.openai import OpenAI
from ramify.compiler.pipeline import run_pipeline
from ramify.ir.errors import Unsupported
from ramify.lang.cli import main
from ramify.lang.servable import Refusal, refusals

from .stub import StubServer
from .stub_openai import openai_app

TOP_K = 3
Numbers = list[int]


def nothing(s: rf.State) -> None:
    s += rf.user("What?") + rf.assistant(rf.gen("x", max_tokens=4, stop=["a"], temperature=0.5))
    if s["x"]:
        s += rf.user("And?") + rf.assistant(rf.gen("y"))
    for each in [1, 2]:
        s += rf.user(f"{each}") + rf.assistant(rf.gen("z"))


def a_global(s: rf.State) -> None:
    s += rf.user("What?") + rf.assistant(rf.gen("x", top_k=TOP_K))


def two_things(s: rf.State) -> None:
    s += rf.user("What?") + rf.assistant(rf.gen("x", regex="[a-z]+", stop_regex="b"))


def stops(s: rf.State) -> None:
    s += rf.user("What?") + rf.assistant(rf.gen("x", stop=["a", "b", "c", "d", "e"]))


def a_list(s: rf.State) -> None:
    s += rf.user("What?") + rf.assistant(rf.gen("x", schema=Numbers))


def a_choice(s: rf.State) -> None:
    s += rf.user("What?") + rf.assistant(rf.select("x", ["a", "b"]))


def a_score(s: rf.State) -> None:
    s += rf.user("What?")
    s += rf.score("x", "b")


def stray_text(s: rf.State) -> None:
    s += "Once."
    s += rf.user("What?") + rf.assistant(rf.gen("x"))


def outside(s: rf.State) -> None:
    s += rf.user("What?")
    s += rf.gen("x")


def in_a_users_message(s: rf.State) -> None:
    s += rf.user("What?" + rf.gen("x"))


def begun(s: rf.State) -> None:
    s += rf.user("What?") + rf.assistant("It is " + rf.gen("x"))


def begun_in_a_loop(s: rf.State) -> None:
    for _ in range(2):
        s += rf.user("What?")
        with s.assistant():
            s += rf.gen("x")
            s += rf.gen("y")


def begun_behind_a_branch(s: rf.State) -> None:
    s += rf.user("What?")
    with s.assistant():
        if len(s.text()) > 3:
            s += "It is "
        else:
            s += "That is "
        s += rf.gen("x")


def on_a_fork(s: rf.State) -> None:
    s += rf.user("What?")
    for branch in s.fork(2):
        branch += rf.gen("x")


CASES: list[tuple[Callable[..., Any], list[str]]] = [
    (nothing, []),
    (a_global, ["cannot take top_k"]),
    (two_things, ["cannot take regex", "cannot take stop_regex"]),
    (stops, ["at most 4 stop strings, not 5"]),
    (a_list, ["JSON schemas of objects only"]),
    (a_choice, ["cannot take select()"]),
    (a_score, ["cannot take score()"]),
    (stray_text, ["stands outside of them"]),
    (outside, ["stands outside of the messages"]),
    (in_a_users_message, ["inside a message of user"]),
    (begun, ["cannot continue an assistant message"]),
    (begun_in_a_loop, ["cannot continue an assistant message"]),
    (begun_behind_a_branch, ["cannot continue an assistant message"]),
]


@pytest.fixture(scope="module")
def backend() -> Iterator[OpenAI]:
    with StubServer(openai_app) as server:
        backend = OpenAI("m", base_url=f"{server.url}/v1", flavour="openai")
        yield backend
        backend.close()


def told(program: Any, backend: str) -> list[Refusal]:
    lowered = program.lower()
    return refusals(run_pipeline(lowered.module), lowered.python, describe_backend(backend))


@pytest.mark.parametrize(("body", "messages"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_what_is_told_is_what_a_run_is_refused_for(backend: OpenAI, body: Any, messages: list[str]) -> None:
    program = rf.program(body)
    found = told(program, "openai:m")
    assert len(found) == len(messages), [str(each) for each in found]
    for each, message in zip(found, messages, strict=True):
        assert message in each.message and each.is_certain
        assert each.span is not None and each.span.file == __file__
    if messages:
        with pytest.raises(Unsupported) as caught:
            program.run(backend=backend)
        assert any(message in caught.value.message for message in messages)


def test_servers_that_can_do_more_are_told_less() -> None:
    names = {body.__name__ for body, _ in CASES if not told(rf.program(body), "vllm:m")}
    assert names == {"nothing", "a_global", "stops", "a_list"}


def test_what_depends_on_the_run_may_fail() -> None:
    @rf.program
    def program(s, k, words, pattern):
        s += rf.user(words) + rf.assistant(rf.gen("x", top_k=k))
        s += rf.user(words) + rf.assistant(words + rf.gen("y", regex=pattern))

    found = {each.message: each.is_certain for each in told(program, "openai:m")}
    assert [(message[:12], found[message]) for message in sorted(found)] == [
        ("a chat reque", False),
        ("the backend ", True),
        ("the backend ", False),
    ]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    path = tmp_path / "asks.py"
    path.write_text(
        "import ramify as rf\n\n@rf.program\ndef ask(s):\n    s += rf.user('é?') + rf.assistant(rf.gen('x', top_k=2))\n"
    )
    assert main(["check", str(path), "--backend", "openai:gpt"]) == 2
    assert capsys.readouterr().out == (
        f"{path}:ask: not on openai:gpt\n"
        f"  {path}:5\n"
        "          s += rf.user('é?') + rf.assistant(rf.gen('x', top_k=2))\n"
        "                                            ^^^^^^^^^^^^^^^^^^^^\n"
        "  error: the backend 'openai:gpt' cannot take top_k\n"
        "  help: leave it out, or run on a backend that has the feature 'top_k'\n"
    )
    assert main(["check", str(path), "--backend", "llama.cpp:gpt@http://127.0.0.1:1/v1"]) == 0
    assert main(["check", str(path), "--backend", "scripted"]) == 0
    assert main(["check", str(path), "--backend", "openai"]) == 2
    assert "names no model" in capsys.readouterr().err
