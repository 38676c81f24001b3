"""The scripted backend: deterministic, honest about stops and lengths, streamed, cancellable."""

from __future__ import annotations

import time
from typing import Any

import pytest
import ramify as rf
from ramify.backends import open_backend
from ramify.backends.scripted import ScriptedBackend, words
from ramify.ir.errors import BackendError, UsageError
from ramify.runtime.generation import StreamEvent


@rf.program(eager=True)
def ask(s: rf.State, question: str, **params: Any) -> Any:
    s += question + rf.gen("x", **params)
    return s["x"]


def answer(reply: str, **params: Any) -> tuple[str, dict[str, Any]]:
    run = ask.run("q", **params, backend=ScriptedBackend(lambda text, _: reply))
    return run["x"], run.get_meta_info("x")


def test_words_are_tokens() -> None:
    assert words(" one  two\nthree ") == [" one", "  two", "\nthree", " "]
    text, info = answer("one two three", max_tokens=2)
    assert (text, info["finish_reason"], info["completion_tokens"]) == ("one two", "length", 2)


def test_stop_strings_cut_at_the_earliest() -> None:
    text, info = answer("one two. three", stop=["three", ".", "zzz"])
    assert (text, info["finish_reason"], info["matched"]) == ("one two", "stop", ".")


def test_the_default_depends_on_the_prompt_and_on_the_seed_only_when_sampling() -> None:
    backend = ScriptedBackend()

    def x(question: str, **params: Any) -> Any:
        return ask.run(question, **params, backend=backend).value

    assert x("a") == x("a") != x("b")
    assert x("a", seed=1) == x("a", seed=2)
    assert x("a", seed=1, temperature=1.0) != x("a", seed=2, temperature=1.0)
    assert backend.requests[:3] == ["a", "a", "b"]


def test_select_takes_the_best_score_and_tells_all() -> None:
    @rf.program(eager=True, backend=ScriptedBackend(score=lambda text, choice: float(len(choice))))
    def pick(s: rf.State) -> Any:
        s += "which?" + rf.select("c", ["a", "bbb", "cc"])

    run = pick.run()
    assert run["c"] == "bbb" and run.text == "which?bbb"
    assert run.get_meta_info("c")["scores"] == {"a": 1.0, "bbb": 3.0, "cc": 2.0}


@pytest.mark.parametrize("how", ["returned", "raised"])
def test_an_error_of_the_reply_is_the_gens_error(how: str) -> None:
    error = LookupError("no idea")

    def reply(text: str, params: Any) -> Any:
        if how == "raised":
            raise error
        return error

    with pytest.raises(LookupError) as caught:
        ask.run("q", backend=ScriptedBackend(reply))
    assert caught.value is error
    assert "test_scripted.py" in caught.value.__notes__[0]


def test_a_reply_must_be_text() -> None:
    with pytest.raises(TypeError, match="returned int"):
        ask.run("q", backend=ScriptedBackend(lambda text, params: 5))  # type: ignore[arg-type,return-value]


def test_pieces_come_in_order_and_add_up() -> None:
    events: list[StreamEvent] = []
    ask.run("q", stream=events.append, backend=ScriptedBackend(lambda *_: "one two three", delay=0.01))
    assert [event.text for event in events] == ["q", "one", " two", " three"]


def test_a_delay_passes_and_others_run_meanwhile() -> None:
    backend = ScriptedBackend(delay=0.1)
    begun = time.perf_counter()
    ask.run_batch([{"question": str(n)} for n in range(20)], backend=backend)
    assert 0.1 <= time.perf_counter() - begun < 1.5


def test_a_closed_backend_refuses() -> None:
    backend = ScriptedBackend()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        ask.run("q", backend=backend)


def test_open_backend_takes_backends_and_names_what_it_does_not_know() -> None:
    backend = ScriptedBackend()
    assert open_backend(backend) is backend
    assert isinstance(scripted := open_backend("scripted:0.5"), ScriptedBackend)
    assert scripted.delay == 0.5
    assert open_backend("scripted:0.5") is scripted is not open_backend("scripted")
    with pytest.raises(UsageError, match="the model 'scripted:soon' has no delay in seconds after the colon"):
        open_backend("scripted:soon")
    with pytest.raises(UsageError, match="no backend 'no/such/thing'"):
        open_backend("no/such/thing")


def test_a_reply_is_a_function():
    with pytest.raises(UsageError, match="not 'yes'"):
        ScriptedBackend("yes")
