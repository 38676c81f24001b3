"""Forced text: which tokens it becomes, how it is computed, and what else it meets in a generation and in a batch."""

from __future__ import annotations

import gc
import json
import threading
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch
from ramify.backends.tiny import model_dir
from ramify.runtime.background import Background
from ramify.runtime.batch import Batch
from ramify.runtime.constraint import Constraint, json_schema_constraint
from ramify.runtime.engine import Engine
from ramify.runtime.matcher import Grammars, Matcher
from ramify.runtime.request import Delta
from ramify.runtime.tokens import Tokenizer

from .fakes import FakeConfig, FakeModel, call, finish, next_logits

TOKENIZER = Tokenizer.load(Path(model_dir()))
VOCAB = TOKENIZER.vocab_size
GRAMMARS = Grammars(TOKENIZER, VOCAB)
END = TOKENIZER.eos_ids[0]
REPORT = json_schema_constraint(
    {
        "type": "object",
        "properties": {
            "temperature": {"type": "integer", "minimum": 0, "maximum": 9},
            "is the weather fine": {"type": "boolean"},
            "description": {"enum": ["cold and wet", "cold and dry", "warm"]},
        },
        "required": ["temperature", "is the weather fine", "description"],
        "additionalProperties": False,
    }
)


def engine(model: Any = None, **options: Any) -> Engine:
    settings: dict[str, Any] = {"grammars": GRAMMARS, "eos_token_ids": (END,), "kv_tokens": 4000, "check": True}
    settings |= options
    return Engine(model or FakeModel(FakeConfig(VOCAB, 1000)), TOKENIZER.decode_stream, **settings)


def forced_at_each_step(constraint: Constraint, token_ids: tuple[int, ...]) -> list[list[int]]:
    """What follows without choice at each place of a generation."""
    matcher = GRAMMARS.matcher(constraint)
    forced = [matcher.forced()]
    for token_id in token_ids:
        matcher.consume(token_id)
        forced.append(matcher.forced())
    return forced


def test_forced_tokens_are_the_tokenizers_own_in_any_continuation() -> None:
    """The text before a choice may still merge with what is chosen, so it is not forced until it cannot."""
    kinds = ("cold and wet", "cold and dry", "warm")
    reports = [
        {"temperature": n, "is the weather fine": fine, "description": kind}
        for n, fine, kind in product(range(10), (True, False), kinds)
    ]
    texts = [json.dumps(report, separators=(",", ":")) for report in reports]
    num_forced = 0
    for text in texts:
        token_ids = tuple(TOKENIZER.encode_after(text))
        for place, forced in enumerate(forced_at_each_step(REPORT, token_ids)):
            assert list(token_ids[place : place + len(forced)]) == forced
            num_forced += len(forced) > 1
    assert num_forced > len(texts)


def test_a_generation_is_the_tokenizers_own_where_it_is_forced() -> None:
    """A model that says anything may spell what it chooses oddly, but never what it has to say."""
    for seed in range(25):
        (done,) = finish(engine(), call([seed], constraint=REPORT, temperature=1.0, seed=seed, max_tokens=99))
        forced = forced_at_each_step(REPORT, done.token_ids)
        for place, must in enumerate(forced):
            assert list(done.token_ids[place : place + len(must)]) == must
        start = 0
        while start < len(done.token_ids):
            stretch = forced[start]
            if stretch:
                assert list(TOKENIZER.encode_after(TOKENIZER.decode(stretch))) == stretch
            start += max(1, len(stretch))


def test_forced_text_of_many_requests_is_computed_in_one_batch() -> None:
    """Each is computed as a prompt would be: all rows of one step, and logits for the last one alone."""
    forced = ": this is what everybody has to say, "
    constraint = Constraint("regex", f"[ab]{forced}[yn]")
    model = FakeModel(FakeConfig(VOCAB, 1000))
    calls = [call([seed, 7], constraint=constraint, temperature=1.0, seed=seed) for seed in range(6)]
    free = call([9, 9], max_tokens=20, ignore_eos=True)
    finish(engine(model, chunk_tokens=1000), *calls, free)
    assert all(one.done.text[1:-1] == forced for one in calls)
    (known,) = {len(forced_at_each_step(constraint, one.done.token_ids)[1]) for one in calls}
    assert known > 10
    assert model.rows[:2] == [7 * 2, 6 * (1 + known) + 1], "the prompts; a letter and what is forced, and the free one"
    assert [len(batch.logit_rows) for batch in model.batches[:2]] == [7, 7]
    assert len(model.rows) == 20, "as many steps as the free request has tokens"


def test_log_probabilities_of_forced_tokens_are_the_models() -> None:
    for seed in range(8):
        prompt = [seed, 3]
        wanted = call(prompt, constraint=REPORT, temperature=1.0, seed=seed, max_tokens=99, logprobs=3)
        (done,) = finish(engine(), wanted)
        history = list(prompt)
        for token_id, told in zip(done.token_ids, done.logprobs, strict=True):
            scores = torch.from_numpy(next_logits(history, VOCAB)).float().log_softmax(-1)
            assert told.token_id == token_id
            assert told.logprob == pytest.approx(float(scores[token_id]), abs=1e-5)
            assert [top for top, _ in told.top] == scores.topk(3).indices.tolist()
            history.append(token_id)


@pytest.mark.parametrize("logprobs", [None, 1])
def test_a_stop_string_inside_forced_text_ends_there(logprobs: int | None) -> None:
    constraint = Constraint("regex", "One two three four five six [a-z]{40}")
    model = FakeModel(FakeConfig(VOCAB, 1000))
    wanted = call([1, 2], constraint=constraint, stop=("ree fo",), logprobs=logprobs)
    serving = engine(model)
    (done,) = finish(serving, wanted)
    assert (done.text, done.finish_reason, done.matched) == ("One two th", "stop", "ree fo")
    assert TOKENIZER.decode(done.token_ids) + done.tail == done.text
    assert done.generated_tokens < len(TOKENIZER.encode("One two three four five six "))
    serving.check_idle()


def test_max_tokens_cuts_forced_text() -> None:
    constraint = Constraint("regex", "One two three four five six")
    whole = TOKENIZER.encode(constraint.source)
    for most in range(1, len(whole)):
        (done,) = finish(engine(), call([1, 2], constraint=constraint, max_tokens=most, logprobs=most % 2 or None))
        assert (list(done.token_ids), done.finish_reason) == (whole[:most], "length")


def test_what_is_streamed_comes_in_order_and_early() -> None:
    """Forced text is told in the step in which it became known, before what follows it is computed."""
    constraint = Constraint("regex", "[ab] and then a stretch that is known, [cd] and one more of those")
    wanted = call([5], constraint=constraint, temperature=1.0, seed=2)
    serving = engine()
    serving.submit(wanted.request)
    told = []
    while serving.step():
        told.append("".join(event.text for event in wanted.events if isinstance(event, Delta)))
    assert told[0][1:].startswith(" and then a stretch that is known")
    assert all(later.startswith(earlier) for earlier, later in pairwise(told))
    assert len(told) <= 2 and wanted.done.text.endswith("one more of those")


def test_samples_of_one_prompt_follow_matchers_of_their_own() -> None:
    """Forks and n > 1: a matcher is a copy, and what one sample says binds no other."""
    calls = [call([4, 4], constraint=REPORT, temperature=1.0, seed=seed, max_tokens=99) for seed in range(12)]
    serving = engine()
    finish(serving, *calls)
    assert len({one.done.text for one in calls}) > 3
    assert all(set(json.loads(one.done.text)) == set(json.loads(calls[0].done.text)) for one in calls)
    assert serving.stats().hit_tokens > 0, "they share the prompt"


def test_from_the_cache_is_as_computed() -> None:
    """A prompt whose forced continuation is in the cache already gives the same text and log-probabilities."""
    serving = engine()
    params: dict[str, Any] = {"constraint": REPORT, "temperature": 1.0, "seed": 3, "max_tokens": 99, "logprobs": 0}
    (first,) = finish(serving, call([1, 2, 3], **params))
    (again,) = finish(serving, call([1, 2, 3], **params))
    assert again.cached_tokens > 0 == first.cached_tokens
    assert (again.token_ids, again.text) == (first.token_ids, first.text)
    assert [one.logprob for one in again.logprobs] == pytest.approx([one.logprob for one in first.logprobs], abs=1e-5)
    serving.clear_cache()
    extended = [1, 2, 3, *first.token_ids]
    finish(serving, call([1, 2, 3], **params))
    (after,) = finish(serving, call(extended, max_tokens=4))
    (alone,) = finish(engine(prefix_cache=False), call(extended, max_tokens=4))
    assert after.token_ids == alone.token_ids and after.cached_tokens >= len(extended) - 2


class Meanwhile(FakeModel):
    """A model whose forward pass waits until the masks of its step have been computed by somebody else."""

    def __init__(self, grammars: Watched) -> None:
        super().__init__(FakeConfig(VOCAB, 1000))
        self.grammars = grammars

    def forward(self, batch: Batch) -> torch.Tensor:
        if self.grammars.begun:
            assert self.grammars.filled.wait(timeout=30), "the masks wait for the forward pass"
        return super().forward(batch)


class Watched(Grammars):
    """Notes when masks are asked for and who computes them."""

    def __init__(self) -> None:
        super().__init__(TOKENIZER, VOCAB)
        self.begun = 0
        self.filled = threading.Event()
        self.threads: set[str] = set()

    def begin(self, matchers: Any) -> Any:
        self.begun += 1
        self.filled.clear()
        return super().begin(matchers)

    def fill(self, matchers: Any) -> torch.Tensor:
        bits = super().fill(matchers)
        self.threads.add(threading.current_thread().name)
        self.filled.set()
        return bits


def test_masks_are_computed_while_the_model_runs() -> None:
    grammars = Watched()
    grammars.compile(REPORT)
    grammars.threads.clear()
    serving = engine(Meanwhile(grammars), grammars=grammars)
    calls = [call([seed], constraint=REPORT, temperature=1.0, seed=seed, max_tokens=99) for seed in range(5)]
    finish(serving, *calls, call([9], max_tokens=5))
    assert all(json.loads(one.done.text) for one in calls)
    assert grammars.begun > 3 and grammars.threads == {"ramify-masks"}


def test_a_step_without_constraints_asks_for_no_masks() -> None:
    grammars = Watched()
    finish(engine(grammars=grammars), call([1], max_tokens=5), call([2], max_tokens=9))
    assert grammars.begun == 0


def test_what_computing_masks_raises_fails_the_requests_of_that_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Grammars, matchers: list[Matcher | None]) -> torch.Tensor:
        raise MemoryError("no room for the mask")

    one, later = call([1], constraint=REPORT), call([1], max_tokens=3)
    serving = engine()
    monkeypatch.setattr(Grammars, "fill", broken)
    finish(serving, one)
    assert "no room for the mask" in str(one.error)
    finish(serving, later)
    assert len(later.done.token_ids) == 3


def test_the_thread_beside_keeps_order_and_ends() -> None:
    beside = Background("test-background")
    seen: list[int] = []
    waits = [beside.submit(lambda n=n: seen.append(n)) for n in range(50)]  # type: ignore[misc]
    waits[-1].result(timeout=30)
    assert seen == list(range(50))
    failing = beside.submit(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failing.result(timeout=30)
    (thread,) = [each for each in threading.enumerate() if each.name == "test-background"]
    del beside, failing, waits
    gc.collect()
    thread.join(timeout=30)
    assert not thread.is_alive()
