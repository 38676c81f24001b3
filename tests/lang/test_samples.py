"""gen(n=k): k samples of one prompt, as a list."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import ramify as rf
import torch
from ramify.backends.local import LocalBackend
from ramify.backends.scripted import ScriptedBackend
from ramify.backends.tiny import model_dir
from ramify.ir.errors import RequestError
from ramify.lang.tree import prompt_tree
from ramify.runtime.generation import StreamEvent
from ramify.runtime.request import SamplingParams


@pytest.fixture(scope="module")
def backend() -> Iterator[LocalBackend]:
    opened = LocalBackend(model_dir(), dtype=torch.float32, device="cpu", check=True)
    yield opened
    opened.engine.check_idle()
    opened.close()


@rf.program
def several(s, before, **params):
    s += before + rf.gen("x", **params) + "!"
    s += rf.gen("y", max_tokens=2)
    return s["x"], s["y"]


SAMPLED = {"n": 5, "temperature": 1.3, "max_tokens": 8, "ignore_eos": True}


@pytest.mark.parametrize("eager", [True, False])
def test_the_value_is_a_list_and_the_prompt_goes_on_with_the_first(backend: LocalBackend, eager: bool) -> None:
    run = several.run("Once", **SAMPLED, seed=3, backend=backend, eager=eager)
    texts, after = run.value
    assert len(texts) == 5 and len(set(texts)) == 5
    assert run.text == f"Once{texts[0]}!{after}"
    assert run.usage.calls == 6


def test_samples_of_a_seed_are_its_first_gen_and_others_that_repeat(backend: LocalBackend) -> None:
    alone = several.run("Once", **SAMPLED | {"n": 1}, seed=3, backend=backend)
    first = several.run("Once", **SAMPLED, seed=3, backend=backend)
    again = several.run("Once", **SAMPLED, seed=3, backend=backend, eager=True)
    fewer = several.run("Once", **SAMPLED | {"n": 2}, seed=3, backend=backend)
    assert first.value == again.value
    assert first["x"][0] == alone["x"] and first["x"][:2] == fewer["x"]
    assert several.run("Once", **SAMPLED, seed=4, backend=backend)["x"] != first["x"]


def test_n_samples_cost_one_prefill(backend: LocalBackend) -> None:
    backend.clear_cache()
    computed = backend.stats().computed_tokens
    several.run("word " * 60, n=6, max_tokens=1, temperature=1.0, backend=backend)
    run = several.run("other words " * 60, n=6, max_tokens=1, temperature=1.0, backend=backend)
    samples = run.trace[:6]
    assert not any(record.shared for record in samples), "greedy ones would be answered once"
    (length,) = {record.prompt_tokens for record in samples}
    assert sorted(record.cached_tokens for record in samples) == [0, *[length - 1] * 5]
    assert backend.stats().computed_tokens - computed < 2.5 * length


def test_greedy_samples_are_equal(backend: LocalBackend) -> None:
    run = several.run("Once", n=3, max_tokens=4, backend=backend)
    assert len(set(run["x"])) == 1


@pytest.mark.parametrize("eager", [True, False])
def test_n_of_one_is_a_plain_value(eager: bool) -> None:
    backend = ScriptedBackend()
    run = several.run("a", n=1, backend=backend, eager=eager)
    assert run.value == several.run("a", backend=backend, eager=eager).value
    assert isinstance(run["x"], str) and isinstance(run.get_meta_info("x"), dict)


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("n", [0, -2])
def test_n_below_one_is_refused(n: int, eager: bool) -> None:
    with pytest.raises(RequestError, match=f"n must be >= 1, got {n}") as caught:
        several.run("a", n=n, backend=ScriptedBackend(), eager=eager)
    assert caught.value.span is not None and "rf.gen" in caught.value.span.source_line()


def test_n_of_another_type_or_of_a_choice_is_refused() -> None:
    with pytest.raises(TypeError, match="n must be an int"):
        several.run("a", n=1.5, backend=ScriptedBackend())
    with pytest.raises(TypeError, match="takes no n"):
        rf.gen("x", choices=["a", "b"], n=2)


def counting() -> ScriptedBackend:
    """Answers 0, 1, 2, ... in turn."""
    answers = iter(range(100))
    return ScriptedBackend(lambda text, params: str(next(answers)))


@pytest.mark.parametrize("eager", [True, False])
def test_each_sample_is_decoded_and_told_of(eager: bool) -> None:
    @rf.program(backend=counting(), eager=eager)
    def numbers(s):
        s += "n:" + rf.gen_int("x", n=3)
        return sum(s["x"]), [info["completion_tokens"] for info in s.get_meta_info("x")]

    run = numbers.run()
    assert run.value == (3, [1, 1, 1]) and run["x"] == [0, 1, 2]
    assert [(record.sample, record.text) for record in run.trace] == [(0, "0"), (1, "1"), (2, "2")]
    labels = [child.label for child in prompt_tree(run).children]
    assert sorted(labels) == ["goes on", "sample 1", "sample 2"]


@pytest.mark.parametrize("eager", [True, False])
def test_a_sample_that_fails_fails_the_read_and_is_told_once(eager: bool) -> None:
    answers = ["1", "two", "three"]

    @rf.program(backend=ScriptedBackend(lambda text, params: answers[-1 if params.seed is None else 0]), eager=eager)
    def numbers(s):
        s += "n:" + rf.gen("x", n=3, dtype=int)
        try:
            return s["x"]
        except ValueError as error:
            return str(error)

    run = numbers.run()
    assert run.ok and "'three'" in run.value


@pytest.mark.parametrize("eager", [True, False])
def test_an_unread_sample_that_fails_fails_the_run(eager: bool) -> None:
    def reply(text: str, params: SamplingParams) -> str:
        return "1" if params.seed == 7 else "one"

    @rf.program(backend=ScriptedBackend(reply), eager=eager)
    def numbers(s):
        s += "n:" + rf.gen("x", n=2, dtype=int, seed=7)

    with pytest.raises(ValueError, match="'one'"):
        numbers.run()


def test_events_carry_the_sample(backend: LocalBackend) -> None:
    events: list[StreamEvent] = []
    run = several.run("Once", **SAMPLED, seed=3, backend=backend, stream=events.append)
    for number, text in enumerate(run["x"]):
        mine = [event for event in events if event.name == "x" and event.sample == number]
        assert "".join(event.text for event in mine) == text
        assert all(event.written == ("" if number else event.text) for event in mine)
    assert "".join(event.written for event in events) == run.text


@pytest.mark.parametrize("eager", [True, False])
def test_samples_are_waited_for_where_they_are_read(eager: bool) -> None:
    """Host code that reads them only sometimes waits on no thread that must not."""

    @rf.program(backend=ScriptedBackend(delay=0.02), eager=eager)
    def sometimes(s, flag):
        s += "a" + rf.gen("x", n=3, max_tokens=2) + rf.score("y", ["b", "c"])
        t = s.copy()
        t += "more" + rf.gen("z", max_tokens=1)
        s["late"] = t["z"]
        return flag and (len(s["x"]), len(s["y"]), s["late"] == t["z"])

    assert sometimes.run(True).value == (3, 2, True)
    assert sometimes.run(False).value is False


def test_a_forked_state_and_joins_keep_the_list() -> None:
    @rf.program(backend=counting())
    def forks(s):
        group = s.fork(2)
        group += rf.gen("x", n=2)
        group.join()
        return s["x"]

    value: Any = forks.run().value
    assert sorted(answer for answers in value for answer in answers) == ["0", "1", "2", "3"]


def test_a_long_prompt_is_tokenized_once(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    extend = backend.tokenizer.extend
    lengths: list[int] = []

    def counting_extend(run: Any, text: str) -> Any:
        lengths.append(len(text))
        if len(text) > 4_000:
            time.sleep(0.05)  # so that others would begin meanwhile
        return extend(run, text)

    monkeypatch.setattr(backend.tokenizer, "extend", counting_extend)
    several.run("word " * 300 + "some " * 600, n=4, max_tokens=1, backend=backend)
    assert sum(length > 4_000 for length in lengths) == 1
