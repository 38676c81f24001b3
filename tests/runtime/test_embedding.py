"""Hidden states as requests: those of transformers, whatever is cached, batched, chunked or running beside them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from ramify.ir.errors import BackendError, ContextOverflow, RequestError
from ramify.runtime.batch import Batch
from ramify.runtime.models import Model, load_model

from .fakes import Call, FakeModel, call, expected_tokens, finish, new_engine
from .test_engine import check_embedding

VOCAB = 101
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.25,
    "eos_token_id": None,
    "pad_token_id": 0,
}
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.fixture(scope="module", params=["Llama", "Qwen3"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    reference = getattr(transformers, f"{request.param}ForCausalLM")(
        getattr(transformers, f"{request.param}Config")(**SIZES)
    )
    with torch.no_grad():
        reference.model.norm.weight.normal_(0.5, 0.3)  # else it could not be told whether it was applied
    path = tmp_path_factory.mktemp(request.param)
    reference.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(directory: Path) -> Model:
    return load_model(directory)


@pytest.fixture(scope="module")
def reference(directory: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def asked(count: int, seed: int = 1) -> list[Call]:
    """Of prompts with prefixes in common: their last tokens, all their tokens, those behind a position."""
    rng = random.Random(seed)
    stem = [rng.randrange(VOCAB) for _ in range(40)]
    calls = []
    for number in range(count):
        tokens = stem[: rng.choice([0, 7, 25, 40])] + [rng.randrange(VOCAB) for _ in range(rng.randint(1, 20))]
        calls.append(call(tokens, embed_from=[len(tokens) - 1, 0, rng.randrange(len(tokens))][number % 3]))
    return calls


def wanted(reference: transformers.PreTrainedModel, one: Call) -> np.ndarray:
    with torch.inference_mode():
        states = reference(torch.tensor([one.request.token_ids]), output_hidden_states=True).hidden_states[-1][0]
    return states[one.request.embed_from :].double().mean(0).float().numpy()


def embeddings(engine: Any, calls: list[Call]) -> np.ndarray:
    finish(engine, *calls)
    engine.check_idle()
    return np.stack([one.done.embedding for one in calls])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunk_tokens": 7},
        {"chunk_tokens": 5, "pipelined": True},
        {"prefix_cache": False},
        {"max_running": 1},
        {"kv_tokens": 70},
    ],
)
def test_they_are_those_of_transformers(
    model: Model, reference: transformers.PreTrainedModel, options: dict[str, Any]
) -> None:
    calls = asked(15)
    want = np.stack([wanted(reference, one) for one in calls])
    assert want.std() > 0.1
    got = embeddings(new_engine(model, **options), calls)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


def test_company_and_cache_change_nothing(model: Model) -> None:
    """Nor do chunks, but for rounding, since a row's attention may be computed in other parts then."""
    alone = np.concatenate([embeddings(new_engine(model), [one]) for one in asked(12)])
    engine = new_engine(model, kv_tokens=2000)
    together = embeddings(engine, asked(12))
    hits = engine.stats().hit_tokens
    again = embeddings(engine, asked(12))
    assert engine.stats().hit_tokens > hits > 0
    chunked = embeddings(new_engine(model, chunk_tokens=3), asked(12))
    for got in (together, again, chunked):
        np.testing.assert_allclose(got, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pipelined", [False, True])
def test_they_share_steps_with_generations(model: Model, pipelined: bool) -> None:
    prompts = [one.request.token_ids for one in asked(8, seed=2)]
    generations = [
        call(tokens, max_tokens=6, logprobs=2 if number % 2 else None) for number, tokens in enumerate(prompts)
    ]
    scores = [call(tokens, score_from=1) for tokens in prompts if len(tokens) > 1]
    engine = new_engine(model, pipelined=pipelined, chunk_tokens=48)
    calls = asked(9, seed=3)
    finish(engine, *generations, *calls, *scores)
    engine.check_idle()
    np.testing.assert_allclose(
        [one.done.embedding for one in calls], embeddings(new_engine(model), asked(9, seed=3)), rtol=0, atol=1e-5
    )
    for one in (*generations, *scores):
        again = call(one.request.token_ids, one.request.score_from, max_tokens=one.request.params.max_tokens)
        (alone,) = finish(new_engine(model), again)
        assert one.done.token_ids == alone.token_ids
        if one in scores:
            got, want = ([token.logprob for token in done.logprobs] for done in (one.done, alone))
            np.testing.assert_allclose(got, want, atol=1e-5)
    assert all(one.done.embedding is None for one in generations)


def test_logits_are_computed_for_nobody_who_wants_none() -> None:
    sizes: list[int] = []

    class Counting(FakeModel):
        def logits(self, hidden: torch.Tensor) -> torch.Tensor:
            sizes.append(len(hidden))
            return hidden

    engine = new_engine(Counting())
    finish(engine, call(PROMPT, embed_from=0), call([1, 2], embed_from=1))
    assert sizes == [0]
    finish(engine, call([1, 2, 3], embed_from=0), call([7, 8], max_tokens=1))
    assert sizes == [0, 1]


def test_what_is_cached_is_not_computed_again() -> None:
    """Of the last token's hidden state only that token is computed; of a mean all tokens that it is of."""
    model = FakeModel()
    engine = new_engine(model)
    for embed_from, computed in ((7, 8), (7, 1), (3, 5), (0, 8)):
        one = call(PROMPT, embed_from=embed_from)
        finish(engine, one)
        assert model.rows.pop() == computed and not model.rows
        assert one.done.cached_tokens == 8 - computed
        check_embedding(one)
    (done,) = finish(engine, call(PROMPT, max_tokens=3))
    assert done.cached_tokens == 7 and done.token_ids == expected_tokens(PROMPT, 3), "and others go on from it"


def test_many_rows_of_hidden_states_are_no_rows_of_logits() -> None:
    """Scoring bounds the logits of a step for their memory."""
    model = FakeModel()
    engine = new_engine(model, chunk_tokens=24)
    engine._scheduler._max_logit_rows = 2
    one = call([1] * 40, embed_from=0)
    finish(engine, one)
    assert model.rows == [24, 16]
    check_embedding(one)


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_cancelled_one_leaves_nothing(pipelined: bool) -> None:
    engine = new_engine(chunk_tokens=3, pipelined=pipelined)
    first, second, third = call(PROMPT, embed_from=0), call([5, *PROMPT], embed_from=8), call(PROMPT, max_tokens=4)
    for one in (first, second, third):
        engine.submit(one.request)
    engine.step()
    engine.cancel(first.request)
    engine.cancel(second.request)
    finish(engine)
    assert first.done.finish_reason == "cancelled" and first.done.embedding is None
    assert second.done.finish_reason == "cancelled" and second.done.embedding is None
    assert third.done.token_ids == expected_tokens(PROMPT, 4)


@pytest.mark.parametrize("pipelined", [False, True])
def test_numbers_that_are_none_fail_their_own_request(pipelined: bool) -> None:
    model = FakeModel(poison=lambda history: history == PROMPT[:5])
    engine = new_engine(model, pipelined=pipelined)
    bad, good, after = call(PROMPT, embed_from=2), call([*PROMPT, 1], embed_from=6), call([1, 2], max_tokens=3)
    finish(engine, bad, good, after)
    assert isinstance(bad.error, BackendError) and "hidden states are NaN or infinite" in str(bad.error)
    check_embedding(good)
    assert after.done.token_ids == expected_tokens([1, 2], 3)
    engine.check_idle()


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_failing_step_fails_those_in_it(pipelined: bool) -> None:
    def fails(batch: Batch) -> bool:
        return 23 in batch.token_ids.tolist()

    engine = new_engine(FakeModel(fail_on=fails), chunk_tokens=4, pipelined=pipelined)
    bad = call([1, 2, 3, 4, 5, 23], embed_from=0)
    finish(engine, bad)
    assert isinstance(bad.error, BackendError) and "told to fail" in str(bad.error)
    engine.check_idle()
    good = call(PROMPT, embed_from=0)
    finish(engine, good)
    check_embedding(good)


@pytest.mark.parametrize(
    ("tokens", "first", "error", "said"),
    [
        ([], 0, RequestError, "the prompt is empty"),
        (PROMPT, 8, RequestError, "from token 8 on, and the prompt has 8 tokens"),
        (PROMPT, -1, RequestError, "from token -1 on"),
        ([29], 0, RequestError, "outside the vocabulary"),
        ([1] * 201, 0, ContextOverflow, "the model's context holds 200"),
        ([1] * 61, 0, RequestError, "the cache holds 60"),
    ],
)
def test_what_cannot_be_served_is_refused(tokens: list[int], first: int, error: type[Exception], said: str) -> None:
    engine = new_engine(kv_tokens=60)
    one = call(tokens, embed_from=first)
    finish(engine, one)
    assert type(one.error) is error and said in str(one.error)


def test_a_request_asks_for_one_thing() -> None:
    one = call(PROMPT, score_from=2, embed_from=2)
    finish(new_engine(), one)
    assert "not both" in str(one.error)
