"""The sampler against direct computation, row by row, and against the distribution it should draw from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ramify.ir.errors import BackendError
from ramify.runtime.request import SamplingParams
from ramify.runtime.sampler import Choice, Sample, SampleRow, token_logprobs, uniforms

VOCAB = 12
LOGITS = torch.linspace(-2, 3, VOCAB)[torch.randperm(VOCAB, generator=torch.Generator().manual_seed(3))]


def row(
    seed: int = 0, tokens: tuple[int, ...] = (1,), prompt: int = 1, stop: tuple[int, ...] = (), **kw: Any
) -> SampleRow:
    return SampleRow(SamplingParams(**kw), seed, np.array(tokens, dtype=np.int64), prompt, stop)


def pick(logits: torch.Tensor, *rows: SampleRow) -> list[int]:
    chosen = Choice(logits.expand(len(rows), -1), rows).result()
    assert all(isinstance(one, Sample) for one in chosen), chosen
    return [one.token_id for one in chosen]


def frequencies(count: int = 20_000, **kw: Any) -> torch.Tensor:
    rows = [row(seed=seed, **kw) for seed in range(count)]
    return torch.bincount(torch.tensor(pick(LOGITS, *rows)), minlength=VOCAB) / count


def test_greedy_takes_the_first_largest_logit() -> None:
    assert pick(LOGITS, row(), row(seed=5)) == [int(LOGITS.argmax())] * 2
    assert pick(torch.tensor([0.0, 1.0, 1.0]), row()) == [1]


@pytest.mark.parametrize(
    "kw",
    [
        {},
        {"top_k": 4},
        {"top_p": 0.7},
        {"min_p": 0.2},
        {"top_k": 6, "top_p": 0.8, "min_p": 0.1},
        {"temperature": 2.5, "top_p": 0.9},
        {"top_k": 1},
        {"top_p": 1e-9},
    ],
)
def test_draws_follow_the_distribution(kw: dict[str, Any]) -> None:
    kw = {"temperature": 1.0, **kw}
    want = direct_distribution(LOGITS.tolist(), **kw)
    got = frequencies(**kw)
    assert [float(p) == 0 for p in got] == [p == 0 for p in want]
    assert float((got - torch.tensor(want)).abs().max()) < 0.015


def direct_distribution(
    logits: list[float], temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> list[float]:
    """The same distribution written with lists: rank, keep, renormalise."""
    weights = np.exp(np.array(logits) / temperature)
    assert len(set(weights)) == len(weights)
    ranked = sorted(range(len(logits)), key=lambda i: -weights[i])[: top_k or None]
    total, kept, mass = sum(weights[i] for i in ranked), [], 0.0
    for i in ranked:
        if mass < top_p and weights[i] >= min_p * weights[ranked[0]]:
            kept.append(i)
        mass += weights[i] / total
    total = sum(weights[i] for i in kept)
    return [float(weights[i] / total) if i in kept else 0.0 for i in range(len(logits))]


@pytest.mark.parametrize(
    "kw",
    [
        {},
        {"top_p": 0.6},
        {"top_p": 0.97},
        {"min_p": 0.05},
        {"min_p": 0.9},
        {"top_k": 600, "top_p": 0.5, "min_p": 0.01},
        {"top_k": 40, "top_p": 0.9},
    ],
)
def test_draws_from_a_large_vocabulary(kw: dict[str, Any]) -> None:
    """Both the short way through the likeliest tokens and the long one: tokens by rank, in ten bins of equal mass."""
    logits = torch.randn(3001, generator=torch.Generator().manual_seed(1))
    want = np.array(direct_distribution(logits.tolist(), temperature=1.0, **kw))
    count = 3000
    chosen = pick(logits, *[row(seed=seed, temperature=1.0, **kw) for seed in range(count)])
    assert all(want[token] > 0 for token in chosen)
    order = np.argsort(-want, kind="stable")
    bins = np.minimum((np.cumsum(want[order]) - want[order]) * 10, 9).astype(int)
    mass = np.bincount(bins, weights=want[order], minlength=10)
    bin_of = np.empty(len(order), dtype=int)
    bin_of[order] = bins
    got = np.bincount(bin_of[chosen], minlength=10) / count
    assert np.abs(got - mass).max() < 0.03


@pytest.mark.parametrize("temperature", [1e-30, 1e-3])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    assert pick(LOGITS * 1e4, row(temperature=temperature)) == [int(LOGITS.argmax())]


def test_a_huge_temperature_draws_evenly_and_not_what_is_suppressed() -> None:
    rows = [row(seed=seed, temperature=1e300, stop=(0, 3), min_tokens=1, max_tokens=1) for seed in range(4000)]
    got = torch.bincount(torch.tensor(pick(LOGITS, *rows)), minlength=VOCAB) / len(rows)
    assert got[0] == got[3] == 0
    assert torch.allclose(got[got > 0], torch.tensor(1 / (VOCAB - 2)), atol=0.03)


def test_a_seed_may_be_of_any_integer_type() -> None:
    assert uniforms([np.int64(-7)], [2]) == uniforms([-7], [2])  # type: ignore[list-item]


PARAMS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.5, 1.0, 3.0]),
        "top_p": st.sampled_from([1.0, 0.5, 0.9]),
        "top_k": st.sampled_from([0, 1, 5, 100]),
        "min_p": st.sampled_from([0.0, 0.3]),
        "frequency_penalty": st.sampled_from([0.0, 1.5, -1.0]),
        "presence_penalty": st.sampled_from([0.0, 0.7]),
        "repetition_penalty": st.sampled_from([1.0, 1.7]),
        "logprobs": st.sampled_from([None, 0, 3]),
    }
)


@settings(max_examples=60, deadline=None)
@given(params=st.lists(PARAMS, min_size=2, max_size=6), seed=st.integers(-(2**70), 2**70), data=st.data())
def test_a_row_does_not_depend_on_its_batch(params: list[dict[str, Any]], seed: int, data: st.DataObject) -> None:
    logits = torch.randn(len(params), VOCAB, generator=torch.Generator().manual_seed(len(params)))
    histories = [tuple(data.draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=6))) for _ in params]
    rows = [row(seed + i, tokens, 1, **kw) for i, (kw, tokens) in enumerate(zip(params, histories, strict=True))]
    before = logits.clone()
    together = Choice(logits, rows).result()
    assert torch.equal(logits, before)
    for i, one in enumerate(rows):
        assert Choice(logits[i : i + 1], [one]).result()[0] == together[i]
    flipped = Choice(logits.flip(0), rows[::-1]).result()
    assert flipped[::-1] == together


def test_uniforms_are_even_and_differ_by_seed_and_counter() -> None:
    points = uniforms([seed for seed in range(200) for _ in range(50)], list(range(50)) * 200)
    assert len(set(points.tolist())) == len(points)
    assert points.min() >= 0 and points.max() < 1
    counts, _ = np.histogram(points, bins=20, range=(0, 1))
    assert ((counts - 500) ** 2 / 500).sum() < 45
    grid = points.reshape(200, 50)
    assert abs(np.corrcoef(grid[:, :-1].ravel(), grid[:, 1:].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(grid[:-1].ravel(), grid[1:].ravel())[0, 1]) < 0.03


def test_uniforms_are_splitmix64() -> None:
    """The published first outputs of SplitMix64 for the state 1234567, with our seed scrambling undone."""
    want = [6457827717110365317, 3203168211198807973]
    assert _splitmix(1234567, 2) == want
    seed = _splitmix(99, 1)[0]
    got = uniforms([99, 99], [0, 1]).tolist()
    assert got == [(bits >> 12) * 2.0**-52 for bits in _splitmix(seed, 2)]


def _splitmix(state: int, count: int) -> list[int]:
    mask, outputs = (1 << 64) - 1, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        bits = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & mask
        outputs.append(bits ^ (bits >> 31))
    return outputs


def test_each_position_draws_anew() -> None:
    even = torch.zeros(1000)
    rows = [row(seed=4, tokens=(0,) * length, temperature=1.0) for length in range(1, 60)]
    assert len(set(pick(even, *rows))) > 50
    longer_prompt = row(seed=4, tokens=(0,) * 5, prompt=5, temperature=1.0)
    assert pick(even, rows[0]) == pick(even, longer_prompt), "positions count from the prompt's end"


def test_penalties_by_hand() -> None:
    logits = torch.tensor([2.0, 1.9, 1.0, -1.0])
    prompt, generated = (0,), (1, 1, 0)
    assert pick(logits, row(tokens=prompt + generated, frequency_penalty=0.5)) == [0]
    assert pick(logits, row(tokens=prompt + generated, frequency_penalty=1.5)) == [2]
    assert pick(logits, row(tokens=prompt + generated, presence_penalty=0.2)) == [0]
    assert pick(logits, row(tokens=prompt + generated, presence_penalty=2.0)) == [2]
    assert pick(logits, row(tokens=prompt, presence_penalty=2.0)) == [0], "the prompt is not penalised"
    assert pick(logits, row(tokens=prompt, repetition_penalty=1.1)) == [1], "but here it is"
    assert pick(-logits, row(tokens=(3,), repetition_penalty=1.1)) == [3]
    assert pick(torch.tensor([-1.0, -1.05]), row(tokens=(0,), repetition_penalty=1.1)) == [1]


def test_min_tokens_suppresses_what_would_stop() -> None:
    logits = torch.tensor([0.0, 3.0, 2.0, 1.0])
    early: dict[str, Any] = {"tokens": (0, 0), "stop": (1, 2), "min_tokens": 2}
    late = {**early, "tokens": (0, 0, 0)}
    assert pick(logits, row(**early), row(**late)) == [3, 1]
    drawn = pick(logits, *[row(seed, temperature=5.0, **early) for seed in range(200)])
    assert set(drawn) == {0, 3}


def test_unusable_logits_fail_their_row_alone() -> None:
    logits = LOGITS.repeat(5, 1)
    logits[1, 4] = torch.nan
    logits[2, 0] = torch.inf
    logits[3] = -torch.inf
    rows = [row(temperature=0.7, logprobs=1) for _ in range(4)]
    rows.append(row(stop=tuple(range(VOCAB)), min_tokens=3, temperature=1.0))
    got = Choice(logits, rows).result()
    assert isinstance(got[0], Sample) and got[0] == Choice(LOGITS[None], rows[:1]).result()[0]
    assert all(isinstance(one, BackendError) for one in got[1:])


def test_logprobs_are_those_of_the_raw_logits() -> None:
    want = LOGITS.double().log_softmax(-1)
    (got,) = Choice(LOGITS[None], [row(tokens=(0, int(LOGITS.argmax())), frequency_penalty=9.0, logprobs=3)]).result()
    assert isinstance(got, Sample) and got.logprob is not None
    assert got.token_id != int(LOGITS.argmax())
    assert got.logprob.logprob == pytest.approx(float(want[got.token_id]), abs=1e-5)
    assert [token for token, _ in got.logprob.top] == want.topk(3).indices.tolist()
    assert [value for _, value in got.logprob.top] == pytest.approx(want.topk(3).values.tolist(), abs=1e-5)
    plain, more = Choice(LOGITS.expand(2, -1), [row(logprobs=0), row(logprobs=VOCAB + 5)]).result()
    assert isinstance(plain, Sample) and plain.logprob is not None and plain.logprob.top == ()
    assert isinstance(more, Sample) and more.logprob is not None and len(more.logprob.top) == VOCAB
    assert token_logprobs(LOGITS[None], [2], [0])[0].logprob == pytest.approx(float(want[2]), abs=1e-5)
