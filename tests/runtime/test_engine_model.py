"""The engine with a real decoder of random weights in float32, against `transformers` and against itself."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from ramify.runtime.models import Model, load_model

from .fakes import Call, call, finish, new_engine

VOCAB = 101


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(11)
    config = transformers.Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        initializer_range=0.25,
        eos_token_id=None,
        pad_token_id=0,
    )
    path = tmp_path_factory.mktemp("model")
    transformers.Qwen3ForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def reference(directory: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def model(directory: Path) -> Model:
    return load_model(directory)


def prompts(count: int) -> list[list[int]]:
    """Prompts of 1 to 60 tokens with prefixes in common, as a batch of forked programs has them."""
    rng = random.Random(4)
    stem = [rng.randrange(VOCAB) for _ in range(40)]
    return [
        stem[: rng.choice([0, 7, 25, 40, 40])] + [rng.randrange(VOCAB) for _ in range(rng.randint(1, 20))]
        for _ in range(count)
    ]


@torch.inference_mode()
def continuation(reference: transformers.PreTrainedModel, tokens: list[int], count: int) -> tuple[int, ...]:
    ids = torch.tensor([tokens])
    made = reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
    return tuple(made[0, len(tokens) :].tolist())


def test_greedy_tokens_are_those_of_transformers(model: Model, reference: transformers.PreTrainedModel) -> None:
    runs = prompts(12)
    engine = new_engine(model, chunk_tokens=24, kv_tokens=400)
    calls = [call(tokens, max_tokens=10) for tokens in runs]
    finish(engine, *calls)
    assert engine.stats().hit_tokens > 0
    made = [one.done.token_ids for one in calls]
    assert made == [continuation(reference, tokens, 10) for tokens in runs]
    assert len({token for tokens in made for token in tokens}) > 20, "the random model says more than one thing"


def test_scores_are_those_of_transformers(model: Model, reference: transformers.PreTrainedModel) -> None:
    runs = [tokens for tokens in prompts(12) if len(tokens) > 5]
    with torch.inference_mode():
        rows = [reference(torch.tensor([tokens])).logits[0].log_softmax(-1) for tokens in runs]
    engine = new_engine(model, chunk_tokens=16)
    for start in (1, 4):
        calls = [call(tokens, score_from=start) for tokens in runs]
        finish(engine, *calls)
        for one, tokens, logprobs in zip(calls, runs, rows, strict=True):
            want = [float(logprobs[i - 1, tokens[i]]) for i in range(start, len(tokens))]
            assert [score.logprob for score in one.done.logprobs] == pytest.approx(want, abs=2e-4)


def workload() -> list[Call]:
    sampled: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95}
    penalized = {**sampled, "repetition_penalty": 1.1}
    return [
        call(tokens, max_tokens=8, **([{}, sampled, {}, penalized][i % 4]), seed=i, stop=("ab", "zz"))
        for i, tokens in enumerate(prompts(16))
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"prefix_cache": False},
        {"tree_attention": False},
        {"chunk_tokens": 3},
        {"chunk_tokens": 200, "kv_tokens": 4000},
        {"max_running": 2, "kv_tokens": 150},
        {"kv_tokens": 80},
        {"kv_tokens": 80, "host_kv_tokens": 600},
        {"kv_tokens": 80, "host_kv_tokens": 600, "pipelined": True},
        {"pipelined": True},
        {"pipelined": True, "chunk_tokens": 16, "kv_tokens": 120},
    ],
)
def test_caching_batching_and_chunking_change_no_token(model: Model, options: dict[str, Any]) -> None:
    alone = []
    for one in workload():
        alone += finish(new_engine(model, prefix_cache=False), one)
    engine = new_engine(model, **options)
    for _ in range(2):
        together = finish(engine, *workload())
        assert [done.token_ids for done in together] == [done.token_ids for done in alone]
        assert [(done.text, done.tail, done.matched) for done in together] == [
            (done.text, done.tail, done.matched) for done in alone
        ]
