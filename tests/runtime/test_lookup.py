"""Drafts by lookup: what is found, that no result depends on it, and what it saves."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from ramify.backends.tiny import model_dir
from ramify.runtime.constraint import Constraint, json_schema_constraint
from ramify.runtime.draft_costs import DraftCosts
from ramify.runtime.engine import Engine
from ramify.runtime.matcher import Grammars
from ramify.runtime.models import load_model
from ramify.runtime.repeats import CANDIDATES, LONGEST, MATCHED, RepeatIndex
from ramify.runtime.request import Done
from ramify.runtime.tokens import Tokenizer

from .fakes import Call, FakeConfig, FakeModel, RepeatingModel, call, finish, new_engine

TOKENIZER = Tokenizer.load(Path(model_dir()))
VOCAB = TOKENIZER.vocab_size
GRAMMARS = Grammars(TOKENIZER, VOCAB)
END = TOKENIZER.eos_ids[0]
LOOP = [3, 1, 4, 1, 5, 9, 2, 6]


def naive_continuation(tokens: list[int], count: int) -> list[int]:
    """What `RepeatIndex.continuation` says, by definition."""
    ends = [end for end in range(MATCHED, len(tokens)) if tokens[end - MATCHED : end] == tokens[-MATCHED:]]
    if len(tokens) <= MATCHED or not ends:
        return []

    def matched(end: int) -> int:
        length = 0
        while length < min(end, LONGEST) and tokens[end - 1 - length] == tokens[-1 - length]:
            length += 1
        return length

    end = max(ends[-CANDIDATES:], key=lambda end: (matched(end), end))
    known = list(tokens)
    for _ in range(count):
        known.append(known[end])
        end += 1
    return known[len(tokens) :]


@given(
    st.lists(st.integers(0, 2) | st.sampled_from([0, 200_000]), max_size=60),
    st.lists(st.integers(1, 9), max_size=8),
    st.integers(1, 20),
)
@settings(deadline=None)
def test_a_match_is_the_naive_one(tokens: list[int], parts: list[int], count: int) -> None:
    """However the tokens came, whatever the array holds behind them."""
    array = np.full(len(tokens) + 5, 1, dtype=np.int64)
    known = min(len(tokens), parts[0] if parts else len(tokens))
    array[: len(tokens)] = tokens
    index = RepeatIndex(array, known)
    for part in [*parts[1:], len(tokens)]:
        assert index.continuation(count) == naive_continuation(tokens[:known], count)
        known = min(known + part, len(tokens))
        index.advance(known)
    assert index.continuation(count) == naive_continuation(tokens, count)


def prompts(count: int, seed: int, vocab_size: int = 29) -> list[list[int]]:
    """Prompts with prefixes in common, some of which repeat themselves."""
    rng = random.Random(seed)
    stems = [[rng.randrange(vocab_size) for _ in range(rng.randint(5, 20))] for _ in range(3)]
    return [
        rng.choice(stems)[: rng.randint(1, 20)] * rng.randint(1, 2)
        + [rng.randrange(vocab_size) for _ in range(rng.randint(0, 6))]
        for _ in range(count)
    ]


def workload(count: int, seed: int, vocab_size: int = 29, max_tokens: int = 30) -> list[Call]:
    """Requests of all kinds, each with a seed, so that its result depends on nothing else."""
    rng = random.Random(seed)
    calls = []
    for number, tokens in enumerate(prompts(count, seed, vocab_size)):
        params: dict[str, Any] = {"max_tokens": rng.randint(1, max_tokens), "seed": number}
        if rng.random() < 0.5:
            params |= {
                "temperature": rng.choice([0.2, 0.7]),
                "top_p": rng.choice([1.0, 0.9]),
                "top_k": rng.choice([0, 5]),
            }
        if rng.random() < 0.3:
            params |= {"repetition_penalty": 1.2, "frequency_penalty": 0.2, "presence_penalty": 0.1}
        if rng.random() < 0.4:
            params |= {"stop": tuple(rng.sample(["a", "bc", "xy", "dd", "é", "q"], 2))}
        if rng.random() < 0.3:
            params |= {
                "stop_token_ids": (rng.randrange(vocab_size),),
                "min_tokens": rng.randint(0, params["max_tokens"]),
            }
        if rng.random() < 0.4:
            params |= {"logprobs": rng.randint(0, 2)}
        calls.append(call(tokens, **params))
    return calls


def essence(done: Done) -> tuple[Any, ...]:
    """All of a result that does not depend on the others."""
    logprobs = [(one.token_id, round(one.logprob, 3)) for one in done.logprobs]
    return done.token_ids, done.text, done.tail, done.finish_reason, done.matched, done.generated_tokens, logprobs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prefix_cache": False},
        {"chunk_tokens": 3},
        {"chunk_tokens": 24, "max_running": 3},
        {"kv_tokens": 90},
        {"max_running": 1},
    ],
)
def test_lookup_changes_no_result(options: dict[str, Any]) -> None:
    for seed in range(3):
        wanted = [essence(done) for done in finish(new_engine(RepeatingModel(), **options), *workload(20, seed))]
        engine = new_engine(RepeatingModel(), lookup="always", **options)
        for _ in range(1 + seed % 2):
            assert [essence(done) for done in finish(engine, *workload(20, seed))] == wanted
        stats = engine.stats()
        assert options.get("chunk_tokens") == 3 or 0 < stats.accepted_tokens < stats.drafted_tokens
        engine.check_idle()


REPORT = json_schema_constraint(
    {
        "type": "object",
        "properties": {
            "names": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 6},
            "how many of them": {"type": "integer"},
            "kinds": {"type": "array", "items": {"enum": ["cold and wet", "cold and dry"]}, "maxItems": 9},
        },
        "required": ["names", "how many of them", "kinds"],
        "additionalProperties": False,
    }
)
CONSTRAINTS = [REPORT, Constraint("regex", "([ab]{2}c, ){3,30}"), Constraint("regex", "(to be or not to be[.,] ?)+")]


def constrained(seed: int) -> list[Call]:
    """Requests with constraints among which a few have none."""
    rng = random.Random(seed)
    calls = []
    for number in range(12):
        params: dict[str, Any] = {"max_tokens": rng.randint(1, 90), "seed": number}
        if rng.random() < 0.8:
            params |= {"constraint": rng.choice(CONSTRAINTS)}
        if rng.random() < 0.5:
            params |= {"temperature": rng.choice([0.3, 1.0])}
        if rng.random() < 0.2:
            params |= {"logprobs": 1}
        if rng.random() < 0.2:
            params |= {"stop": (rng.choice(["bc", "ot", '",', "7"]),)}
        if rng.random() < 0.2:
            params |= {"min_tokens": rng.randint(0, params["max_tokens"])}
        calls.append(call([rng.randrange(VOCAB) for _ in range(rng.randint(1, 9))], **params))
    return calls


@pytest.mark.parametrize("options", [{}, {"fast_forward": False}, {"chunk_tokens": 9, "prefix_cache": False}])
@pytest.mark.parametrize("lookup", ["always", True])
def test_lookup_follows_constraints(options: dict[str, Any], lookup: Any) -> None:
    """The masks of a draft's rows are those that single steps would have had, and what is forced is forced."""

    def run(lookup: Any) -> tuple[list[Any], Engine]:
        serving = Engine(
            RepeatingModel(FakeConfig(VOCAB, 1000)),
            TOKENIZER.decode_stream,
            grammars=GRAMMARS,
            eos_token_ids=(END,),
            kv_tokens=4000,
            check=True,
            lookup=lookup,
            **options,
        )
        return [essence(done) for seed in range(3) for done in finish(serving, *constrained(seed))], serving

    wanted, plain = run(lookup=False)
    found, serving = run(lookup)
    assert found == wanted
    assert lookup is True or serving.stats().steps < plain.stats().steps
    assert lookup is True or serving.stats().accepted_tokens > 100 or "chunk_tokens" in options


def test_a_guess_goes_through_the_constraint() -> None:
    """It ends where it is not allowed, and what is forced takes its place."""
    text = "one two three, "
    constraint = Constraint("regex", f"(x[yz]{text})+")
    matcher = GRAMMARS.matcher(constraint)
    forced = list(TOKENIZER.encode_after(text))
    x, y, n = (TOKENIZER.encode_after(letter)[0] for letter in "xyn")
    for token_id in (x, y):
        matcher.consume(token_id)
    before = matcher.forced()
    assert before and forced[: len(before)] == before
    for token_id in before:
        matcher.consume(token_id)
    guess = [*forced[len(before) :], x, y]
    known, states = matcher.ahead([*guess, n, n], most=50, forces=True)
    assert known[: len(guess)] == guess and known[len(guess) :] == before, "what is forced goes on where the guess ends"
    assert matcher.ahead([*guess, n, n], most=50, forces=False)[0] == guess
    assert matcher.ahead([*guess, n, n], most=2, forces=True)[0] == guess[:2]
    assert matcher.ahead([n], most=5, forces=True) == ([], [])
    assert len(states) == len(known)
    alone = matcher.copy()
    for token_id, state in zip(known, states, strict=True):
        alone.consume(token_id)
        assert torch.equal(GRAMMARS.fill([alone]), GRAMMARS.fill([state]))


def test_an_earlier_generation_is_the_guess() -> None:
    """What was generated after the same prompt is drafted whole, though nothing in it repeats."""
    prompt = list(range(10))
    model = FakeModel()
    engine = new_engine(model, lookup="always")
    (first,) = finish(engine, call(prompt, max_tokens=60))
    num_rows = len(model.rows)
    (again,) = finish(engine, call(prompt, max_tokens=60))
    assert again.token_ids == first.token_ids
    assert len(model.rows) - num_rows < 8, "16 drafted tokens and one more a step"
    engine.clear_cache()
    (after,) = finish(engine, call(prompt, max_tokens=60))
    assert after.token_ids == first.token_ids


def test_costs_decide_and_are_learned() -> None:
    costs = DraftCosts()
    assert costs.best_len(0.95, 1, 16) == 16
    assert costs.best_len(0.25, 1, 16) == 0 < costs.best_len(0.5, 1, 16) < costs.best_len(0.8, 1, 16)
    assert costs.best_len(0.1, 1, 16) == costs.best_len(0.0, 1, 16) == 0
    assert 0 < costs.best_len(0.8, 8, 16) <= costs.best_len(0.8, 1, 16) < 16
    assert costs.can_win(1) and costs.can_win(32) and not costs.can_win(256)
    for price, seconds in ((0.05, 1.0), (4.0, 60.0)):
        costs = DraftCosts()
        for _ in range(200):
            costs.took(32, 0, 0, 1.0)
            costs.took(32, 4, 20, seconds)
        assert costs.price == pytest.approx(price)
        assert costs.can_win(256) == (price < 1)
    assert not costs.can_win(32)
    for _ in range(400):
        costs.took(32, 0, 0, 1.0)
    assert costs.can_win(32), "it is tried again some time"


def test_guesses_are_judged_before_they_are_computed() -> None:
    """With costs in mind, a sequence that repeats is drafted for, and one that does not is not."""
    repeating, changing = RepeatingModel(surprise=0.0), FakeModel()
    for model, wins in ((repeating, True), (changing, False)):
        engine = new_engine(model, lookup=True)
        plain = new_engine(type(model)(**({"surprise": 0.0} if wins else {})))
        wanted = [done.token_ids for done in finish(plain, call(LOOP * 2, max_tokens=120))]
        assert [done.token_ids for done in finish(engine, call(LOOP * 2, max_tokens=120))] == wanted
        stats = engine.stats()
        assert stats.accepted_tokens > 80 if wins else stats.drafted_tokens < 12


def test_what_repeats_takes_fewer_steps() -> None:
    """A model that goes on as the prompt did: a step gives as many tokens as were drafted, and one more."""
    model = RepeatingModel(surprise=0.0)
    (plain,) = finish(new_engine(model), call(LOOP, max_tokens=150, ignore_eos=True))
    num_plain = len(model.rows)
    drafting = RepeatingModel(surprise=0.0)
    engine = new_engine(drafting, lookup="always")
    (done,) = finish(engine, call(LOOP, max_tokens=150, ignore_eos=True))
    stats = engine.stats()
    assert essence(done) == essence(plain)
    assert num_plain == 150 and len(drafting.rows) < 50
    assert stats.computed_tokens + stats.drafted_tokens - stats.accepted_tokens == sum(drafting.rows)
    assert stats.accepted_tokens + len(drafting.rows) >= 149


def test_what_was_drafted_is_cached_as_what_was_chosen() -> None:
    """Neither the KV of tokens that were not chosen nor that of the last one is kept."""
    for seed in range(10):
        runs = []
        for lookup in ("always", False):
            engine = new_engine(RepeatingModel(), lookup=lookup)
            (first,) = finish(engine, call(LOOP * 2, max_tokens=40, temperature=0.5, seed=seed))
            (second,) = finish(engine, call([*LOOP, *LOOP, *first.token_ids, 7], max_tokens=9))
            runs.append((first.token_ids, second.token_ids, second.cached_tokens))
        assert runs[0] == runs[1]
        assert runs[0][2] == 2 * len(LOOP) + 39


def test_a_draft_meets_cancels_and_sinks_that_raise() -> None:
    for seed in range(6):
        rng = random.Random(seed)
        plain = workload(12, seed)
        wanted = [done.token_ids for done in finish(new_engine(RepeatingModel()), *plain)]
        engine = new_engine(RepeatingModel(), lookup="always", kv_tokens=150)
        calls = workload(12, seed)
        for one in calls:
            engine.submit(one.request)
        while engine.step():
            if rng.random() < 0.3:
                engine.cancel(rng.choice(calls).request)
        for one, tokens in zip(calls, wanted, strict=True):
            done = one.done
            assert done.token_ids == tokens[: len(done.token_ids)]
            assert done.finish_reason == "cancelled" or done.token_ids == tokens
        engine.check_idle()


def test_a_failing_row_of_a_draft_fails_nothing_that_is_not_chosen() -> None:
    """What the model says after tokens that do not come is nobody's affair; after those that come it is."""
    (plain,) = finish(new_engine(RepeatingModel()), call(LOOP * 2, max_tokens=30))
    chosen = [*LOOP, *LOOP, *plain.token_ids]
    model = RepeatingModel(poison=lambda history: history != chosen[: len(history)])
    engine = new_engine(model, lookup="always")
    (done,) = finish(engine, call(LOOP * 2, max_tokens=30))
    assert done.token_ids == plain.token_ids
    assert engine.stats().accepted_tokens < engine.stats().drafted_tokens
    failing = call(LOOP * 2, max_tokens=30)
    finish(new_engine(RepeatingModel(poison=lambda history: len(history) == 40), lookup="always"), failing)
    assert "no finite maximum" in str(failing.error)


def test_processors_see_what_was_generated_and_no_draft() -> None:
    seen: list[list[int]] = []

    def watch(token_ids: Any, logits: Any) -> Any:
        seen.append(list(token_ids))
        return logits

    engine = new_engine(RepeatingModel(surprise=0.0), lookup="always")
    (done,) = finish(engine, call(LOOP * 2, max_tokens=40, processors=(watch,)))
    assert engine.stats().drafted_tokens == 0
    assert seen == [[*LOOP, *LOOP, *done.token_ids[:end]] for end in range(40)]


ARCHITECTURES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
}


@pytest.fixture(scope="module", params=["llama", "qwen3", "embedded"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Decoders in float32: two with random weights, whose greedy generations soon go round in circles."""
    if request.param == "embedded":
        return load_model(Path(model_dir()), dtype=torch.float32)
    torch.manual_seed(5)
    new_config, new_model = ARCHITECTURES[request.param]
    config = new_config(
        vocab_size=29,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        initializer_range=0.3,
        eos_token_id=None,
        pad_token_id=0,
    )
    path = tmp_path_factory.mktemp(request.param)
    new_model(config).save_pretrained(path)
    return load_model(path, dtype=torch.float32)


@pytest.mark.parametrize("options", [{}, {"chunk_tokens": 8, "max_running": 3}, {"kv_tokens": 120}])
def test_real_models_say_the_same_in_float32(model: Any, options: dict[str, Any]) -> None:
    def run(lookup: Any) -> tuple[list[Any], Engine]:
        engine = new_engine(model, lookup=lookup, **options)
        return [essence(done) for done in finish(engine, *workload(12, 3))], engine

    wanted, _ = run(lookup=False)
    found, engine = run(lookup="always")
    assert found == wanted
    assert engine.stats().accepted_tokens > 0
