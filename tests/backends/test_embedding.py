"""`rf.embed` and LocalBackend.embed on the embedded model: what they take, refuse and leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ramify
import ramify as rf
import torch
from ramify.backends import embedding
from ramify.backends.local import LocalBackend
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import Cancelled, ContextOverflow, RequestError, Unsupported, UsageError
from ramify.runtime.pending import Pending

WEIGHTS = Path(ramify.__file__).parent / "backends" / "tiny" / "weights"


@pytest.fixture(scope="module")
def backend() -> Iterator[LocalBackend]:
    made = LocalBackend(WEIGHTS, dtype=torch.float32, device="cpu", check=True)
    yield made
    made.engine.check_idle()
    made.close()


@rf.program
def ask(s: rf.State, question: str) -> None:
    s += rf.user(question) + rf.assistant(rf.gen("answer", max_tokens=6))


def close(left: np.ndarray, right: np.ndarray) -> bool:
    return bool(np.allclose(left, right, rtol=0, atol=1e-4))


def test_a_prompt_may_be_written_in_many_ways(backend: LocalBackend) -> None:
    question = "What is 3 + 4?"
    state = backend_state(backend, rf.user(question))
    found = rf.embed([rf.user(question), [{"role": "user", "content": question}], state, state.text()], backend=backend)
    assert found.shape == (4, backend.model.config.hidden_size) and found.dtype == np.float32
    assert all(close(found[0], row) for row in found)
    assert close(backend.embed([state.prompt, "other"])[0], found[0]), "in any company"
    assert not close(found[0], rf.embed(["other"], backend=backend)[0])


def backend_state(backend: LocalBackend, content: Any) -> rf.State:
    @rf.program
    def only(s: rf.State) -> None:
        s += content

    return only.run(backend=backend, eager=True).state


def test_a_run_is_embedded_where_it_ran(backend: LocalBackend) -> None:
    run = ask.run("What is 3 + 4?", backend=backend)
    computed = backend.stats().computed_tokens
    found = rf.embed([run])
    assert backend.stats().computed_tokens - computed < 5, "what the run has computed is cached"
    other = LocalBackend(WEIGHTS, dtype=torch.float32, device="cpu", prefix_cache=False)
    assert close(found, other.embed([run.state.prompt]))
    with pytest.raises(UsageError, match="prompt 1 is a state of another backend"):
        rf.embed(["x", run], backend=other)
    other.close()


def test_the_mean_is_that_of_the_tokens(backend: LocalBackend) -> None:
    text = "The dog sees a red apple."
    encode = backend.tokenizer.extend
    token_ids = encode(None, text).ids
    texts = [backend.tokenizer.decode(list(token_ids[:end])) for end in range(1, len(token_ids) + 1)]
    assert all(encode(None, each).ids == token_ids[:end] for end, each in enumerate(texts, 1)), "choose another text"
    lasts = backend.embed(texts)
    assert close(backend.embed([text], pooling="mean")[0], lasts.mean(0))
    assert close(backend.embed([text], pooling="mean", start=2)[0], lasts[2:].mean(0))


def test_a_program_may_ask_for_it(backend: LocalBackend) -> None:
    @rf.program
    def nearest(s: rf.State, question: str) -> Any:
        s += rf.user(question)
        s += rf.assistant(rf.gen("answer", max_tokens=3))
        vectors = rf.embed([s, s["answer"], s["answer"]], backend=backend)
        return vectors

    for eager in (False, True):
        found = nearest.run("Is 4 even or odd?", backend=backend, eager=eager).value
        assert close(found[1], found[2]) and not close(found[0], found[1])


def test_none_are_none(backend: LocalBackend) -> None:
    assert rf.embed([], backend=backend).shape == (0, backend.model.config.hidden_size)


@pytest.mark.parametrize(
    ("prompts", "options", "error", "said"),
    [
        ("text", {}, UsageError, r"takes a list of prompts, not one: str: 'text'"),
        ([""], {}, RequestError, "prompt 0 is empty"),
        (["a", []], {}, TypeError, "prompt 1 is no prompt: list"),
        ([3], {}, TypeError, "prompt 0 is no prompt: int: 3"),
        ([[{"role": "user"}]], {}, TypeError, "no dict of 'role' and 'content'"),
        ([[{"role": "user", "content": 3}]], {}, TypeError, "role or content is no text"),
        ([rf.user(rf.gen("x"))], {}, UsageError, "has something to generate"),
        (["a"], {"pooling": "max"}, UsageError, "there is no pooling 'max'"),
        (["a"], {"start": 1}, UsageError, "start=1 says nothing"),
        (["a"], {"pooling": "mean", "start": "1"}, TypeError, "start is a number of tokens"),
        (["a b c", "a"], {"pooling": "mean", "start": 1}, RequestError, "start=1 is outside prompt 1, which has 1 tok"),
        (["a", "no " * 3000], {}, ContextOverflow, "prompt 1: .* the model's context holds"),
    ],
)  # fmt: skip
def test_mistakes_are_named(
    backend: LocalBackend, prompts: Any, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        rf.embed(prompts, backend=backend, **options)


def test_backends_without_hidden_states_refuse(backend: LocalBackend) -> None:
    asked: list[str] = []
    scripted = ScriptedBackend(lambda prompt: asked.append(prompt) or "x")
    with pytest.raises(Unsupported, match=r"'scripted' cannot take embed\(\), which asks for hidden states"):
        rf.embed(["a"], backend=scripted)
    assert asked == []


def test_a_wait_that_is_ended_cancels_the_requests(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(pending: Pending[None], timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(embedding.Pending, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backend.embed(["The dog " * 400 + str(number) for number in range(20)])
    monkeypatch.undo()
    backend.embed(["after"])  # is served behind what was cancelled
    stats = backend.stats()
    assert stats.running == stats.waiting == 0


def test_a_closed_backend_says_so() -> None:
    made = LocalBackend(WEIGHTS, dtype=torch.float32, device="cpu")
    made.close()
    with pytest.raises(Cancelled, match="the engine was closed"):
        made.embed(["a", "b"])
