"""What may come next is told to a backend that can prefill; it changes no result and is taken back in time."""

from __future__ import annotations

import linecache
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ramify as rf
import torch
from ramify.backends.local import LocalBackend
from ramify.backends.scripted import ScriptedBackend
from ramify.backends.tiny import model_dir

from .comparing import Hearing

RULES = "Look at the numbers first, then at the words, and in the end at what they mean when they are put together."
WAIT_SECONDS = 60.0


class Tool:
    """A tool that waits, while it is told to, until something has happened for each of its calls."""

    def __init__(self) -> None:
        self.num_calls = 0
        self.has_happened: Callable[[int], bool] = lambda num_calls: True

    def __call__(self, value: str) -> str:
        self.num_calls += 1
        end = time.monotonic() + WAIT_SECONDS
        while not self.has_happened(self.num_calls):
            assert time.monotonic() < end, "what was waited for did not happen"
            time.sleep(0.001)
        return value


tool = Tool()


@rf.program
def agent(s, question):
    s += rf.user(question)
    s += rf.assistant(rf.gen("call", max_tokens=6))
    for _ in range(2):
        result = tool(s["call"])
        s += rf.user("What the tool says is to be read with care. " + RULES + f" It says {result}.")
        s += rf.assistant(rf.gen("call", max_tokens=6))
    return s["call"]


@rf.program(disable="parallelize")  # with it, nothing waits for the tool
def route(s, question):
    s += question + " That is about " + rf.select("kind", ["numbers", "words"])
    tool(s["kind"])
    if s["kind"] == "numbers":
        s += ". Let us look at the numbers, one by one, and then add them all up: " + rf.gen("text", max_tokens=4)
    else:
        s += ". Let us look at the words, one by one, and then say what they mean: " + rf.gen("text", max_tokens=4)
    return s["text"]


@rf.program
def judged(s, question):
    s += question
    judge = s.copy()
    s += rf.gen("answer", max_tokens=4)
    if tool(s["answer"]) != "nothing":
        judge += f"This is how an answer to {question} is judged, by the rules and by nothing else. {RULES}"
        judge += rf.gen("verdict", max_tokens=4)
    return s["answer"]


# Each with how many tokens its tool waits for in each call.
PROGRAMS = [(agent, 16), (route, 16), (judged, 32)]
QUESTION = "How many are twelve and thirty?"


@pytest.fixture(scope="module")
def backend() -> Iterator[LocalBackend]:
    opened = LocalBackend(model_dir(), dtype=torch.float32, check=True)
    opened.engine._speculation._share = 1e9  # so that time decides nothing
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def fresh_tool() -> Iterator[None]:
    tool.__init__()  # type: ignore[misc]
    yield
    tool.__init__()  # type: ignore[misc]


def wanted(backend: LocalBackend) -> int:
    """How many texts the engine is still to compute ahead."""
    backend.engine.check_idle()
    return len(backend.engine._speculation._wanted)


@pytest.mark.parametrize(("program", "tokens"), PROGRAMS, ids=lambda each: getattr(each, "name", ""))
def test_it_is_computed_while_a_tool_runs(backend: LocalBackend, program: rf.Program, tokens: int) -> None:
    backend.clear_cache()
    start = backend.stats()
    without = program.options(disable=["parallelize", "speculate"]).run(QUESTION, backend=backend)
    plain = backend.stats()
    assert plain.speculated_tokens == start.speculated_tokens
    backend.clear_cache()
    tool.__init__()  # type: ignore[misc]
    tool.has_happened = lambda calls: backend.stats().speculated_tokens >= start.speculated_tokens + calls * tokens
    run = program.run(QUESTION, backend=backend)
    stats = backend.stats()
    hits = stats.speculation_hits - plain.speculation_hits
    assert (run.value, run.text, dict(run.vars)) == (without.value, without.text, dict(without.vars))
    assert hits >= 16
    assert stats.computed_tokens - plain.computed_tokens == plain.computed_tokens - start.computed_tokens - hits
    names = ("prompt_tokens", "generated_tokens", "calls", "shared_calls")
    assert [getattr(run.usage, name) for name in names] == [getattr(without.usage, name) for name in names]
    assert run.usage.cached_tokens == without.usage.cached_tokens + hits
    assert wanted(backend) == 0


def test_it_is_taken_back_when_the_run_fails(backend: LocalBackend) -> None:
    backend.clear_cache()

    def fail(calls: int) -> bool:
        raise ValueError("the tool is broken")

    tool.has_happened = fail
    with pytest.raises(ValueError, match="the tool is broken"):
        agent.run(QUESTION, backend=backend)
    assert wanted(backend) == 0


def test_many_runs_at_once_and_little_memory(backend: LocalBackend) -> None:
    rows = [{"question": f"How many are {row % 3} and thirty?"} for row in range(8)]
    small = LocalBackend(model_dir(), dtype=torch.float32, kv_tokens=700, check=True)
    try:
        for program, _ in PROGRAMS:
            without = program.options(disable=["parallelize", "speculate"])
            want = [run.value for run in without.run_batch(rows, backend=backend)]
            assert [run.value for run in program.run_batch(rows, backend=small)] == want
            assert wanted(small) == 0
    finally:
        small.close()


def hear(program: rf.Program, **options: Any) -> Hearing:
    backend = Hearing(delay=0.02)
    tool.has_happened = lambda calls: True
    program.run(QUESTION, backend=backend, **options)
    return backend


def test_what_is_told_is_how_a_request_begins() -> None:
    backend = hear(route)
    assert [text for text, _ in backend.told] == [
        f"{QUESTION} That is about numbers. Let us look at the numbers, one by one, and then add them all up: ",
        f"{QUESTION} That is about words. Let us look at the words, one by one, and then say what they mean: ",
    ]
    assert sum(text in backend.requests for text, _ in backend.told) == 1
    backend = hear(judged)
    assert [is_open for _, is_open in backend.told] == [False] and backend.told[0][0] in backend.requests
    assert backend.num_brief == 0
    backend = hear(agent)
    assert [is_open for _, is_open in backend.told] == [True, True, True], "the last one is for a turn that never comes"
    for text, _ in backend.told[:2]:
        assert text.endswith(RULES + " It says ")
        assert any(request.startswith(text) for request in backend.requests)
    assert backend.num_taken_back == len(backend.told)


def test_what_would_follow_another_choice_is_taken_back_or_not_told() -> None:
    at_once = Hearing()
    tool.has_happened = lambda calls: True
    run = route.run(QUESTION, backend=at_once)
    assert [text for text, _ in at_once.told] == [text for text in at_once.requests if text.endswith(": ")]
    assert f"That is about {run['kind']}. " in at_once.told[0][0]
    later = Hearing(delay=0.02)
    seen: list[int] = []

    def look(calls: int) -> bool:
        seen.append(later.num_taken_back)
        return True

    tool.has_happened = look
    assert route.run(QUESTION, backend=later).value == run.value
    assert seen == [1] and len(later.told) == 2


def test_nothing_is_told_without_need() -> None:
    assert hear(agent, eager=True).told == []
    assert hear(agent.options(disable=["speculate"])).told == []
    deaf = ScriptedBackend()
    agent.run(QUESTION, backend=deaf)
    assert len(deaf.requests) == 3


def test_what_is_not_a_text_or_not_there_is_left_out() -> None:
    text: Any = RULES

    @rf.program
    def program(s, more):
        s += "Now. " + rf.select("a", ["yes", "no"])
        if s["a"] == "yes":
            s += f" {text} {more} and then something else " + rf.gen("b")
        else:
            s += f" {text} {more} and then something else " + rf.gen("b")

    backend = Hearing(delay=0.02)
    program.run("red", backend=backend)
    assert [told for told, _ in backend.told] == [
        f"Now. {choice} {RULES} red and then something else " for choice in ("yes", "no")
    ]
    backend = Hearing(delay=0.02)
    program.run(5, backend=backend)
    assert backend.told == [(f"Now. {choice} {RULES} ", True) for choice in ("yes", "no")]
    text = 7
    backend = Hearing(delay=0.02)
    program.run("red", backend=backend)
    assert backend.told == [(f"Now. {choice} ", True) for choice in ("yes", "no")]
    assert backend.num_brief == 2, "the program goes on at once"


def test_a_stream_hears_nothing_of_it() -> None:
    def events(program: rf.Program) -> list[tuple[str, str]]:
        heard: list[tuple[str, str]] = []
        program.run(QUESTION, backend=Hearing(), stream=lambda event: heard.append((event.kind, event.text)))
        return heard

    for program, _ in PROGRAMS:
        assert events(program) == events(program.options(disable=["speculate"]))


def test_messages_that_do_not_nest_are_the_programs_own_error() -> None:
    @rf.program
    def program(s):
        s += rf.select("a", ["yes", "no"])
        if s["a"] == "yes" or s["a"] == "no":
            s += rf.user_begin() + RULES + rf.user_begin() + rf.gen("b")

    backend = Hearing()
    with pytest.raises(rf.RamifyError, match="begins inside"):
        program.run(backend=backend)
    assert backend.told == []


def elsewhere() -> Any:
    """A helper whose globals are not those of this file."""
    source = "def judge(s):\n    s += RULES + '!' + rf.gen('verdict', max_tokens=4)\n    return s['verdict']\n"
    linecache.cache["<elsewhere>"] = (len(source), None, source.splitlines(True), "<elsewhere>")
    space: dict[str, Any] = {"RULES": f"These are other rules. {RULES}", "rf": rf}
    exec(compile(source, "<elsewhere>", "exec"), space)
    return space["judge"]


def test_names_are_looked_up_where_the_text_comes_from(monkeypatch) -> None:
    judge, told = elsewhere(), []

    @rf.program
    def program(s, question):
        s += question + rf.gen("answer", max_tokens=4)
        tool(s["answer"])
        return judge(s)

    backend = ScriptedBackend()
    backend.features |= {"prefill"}
    monkeypatch.setattr("ramify.runtime.steps.warm", lambda prompt, parts, **_: told.append(parts))
    assert "in @judge" in program.compile().ir
    run = program.run(QUESTION, backend=backend)
    assert told and all(parts[0].startswith("These are other rules.") for parts in told)
    assert run.text == program.run(QUESTION, backend=ScriptedBackend(), eager=True).text
