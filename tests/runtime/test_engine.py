"""The engine with the fake model: results, caching, stops, scores, failures, the thread, and random workloads."""

from __future__ import annotations

import math
import random
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from ramify.ir.errors import BackendError, Cancelled, ContextOverflow, RequestError, UsageError
from ramify.runtime.engine import Engine
from ramify.runtime.memory import default_kv_tokens, free_memory
from ramify.runtime.output import find_stop
from ramify.runtime.pool import KVLayout
from ramify.runtime.request import Delta, EngineRequest, Event, Failed, SamplingParams

from .fakes import Call, FakeModel, ToyStream, call, expected_tokens, finish, new_engine, next_logits, toy_decode

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    """Prompts that share prefixes of many lengths."""
    rng = random.Random(seed)
    stems = [[rng.randrange(29) for _ in range(rng.randint(5, 30))] for _ in range(3)]
    made = []
    for _ in range(count):
        stem = rng.choice(stems)
        made.append(stem[: rng.randint(1, len(stem))] + [rng.randrange(29) for _ in range(rng.randint(0, 6))])
    return made


def test_greedy_generation_is_the_models() -> None:
    (done,) = finish(new_engine(), call(PROMPT, max_tokens=12))
    assert done.token_ids == expected_tokens(PROMPT, 12)
    assert done.text == toy_decode(done.token_ids)
    assert (done.finish_reason, done.tail, done.matched) == ("length", "", None)
    assert (done.prompt_tokens, done.cached_tokens, done.generated_tokens) == (8, 0, 12)
    assert 0 <= done.queue_ms <= done.wall_ms


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prefix_cache": False},
        {"chunk_tokens": 1},
        {"chunk_tokens": 7, "max_running": 3},
        {"kv_tokens": 60},
        {"max_running": 1},
        {"max_running": 2, "order": "service"},
        {"kv_tokens": 50, "chunk_tokens": 5, "prefix_cache": False},
        {"pipelined": True},
        {"pipelined": True, "kv_tokens": 60, "chunk_tokens": 7},
    ],
)
def test_caching_batching_and_chunking_change_no_token(options: dict[str, Any]) -> None:
    runs = prompts(25)
    sampled: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9}
    if not options.get("pipelined"):
        sampled["frequency_penalty"] = 0.4
    calls = [call(tokens, max_tokens=8, **(sampled | {"seed": i} if i % 2 else {})) for i, tokens in enumerate(runs)]
    engine = new_engine(**options)
    together = [done.token_ids for done in finish(engine, *calls)]
    engine.check_idle()
    for i, (tokens, got) in enumerate(zip(runs, together, strict=True)):
        if i % 2 == 0:
            assert got == expected_tokens(tokens, 8)
        else:
            (alone,) = finish(new_engine(), call(tokens, max_tokens=8, seed=i, **sampled))
            assert got == alone.token_ids
    again = [call(tokens, max_tokens=8) for tokens in runs[::2]]
    assert [done.token_ids for done in finish(engine, *again)] == together[::2]


def test_what_was_generated_is_cached_too() -> None:
    engine = new_engine()
    (first,) = finish(engine, call(PROMPT, max_tokens=10))
    follow_up = [*PROMPT, *first.token_ids, 7, 7]
    (second,) = finish(engine, call(follow_up, max_tokens=3))
    assert second.cached_tokens == len(PROMPT) + 9, "all but the last token, whose KV was never computed"
    assert second.token_ids == expected_tokens(follow_up, 3)


def test_a_decoding_request_shares_its_prompt_at_once() -> None:
    engine = new_engine()
    first, second = call(PROMPT, max_tokens=20), call(PROMPT, max_tokens=2)
    engine.submit(first.request)
    engine.step()
    engine.submit(second.request)
    engine.step()
    engine.step()
    assert second.done.cached_tokens == len(PROMPT) - 1 and not first.ended
    finish(engine)


def test_equal_prompts_cost_one_prefill() -> None:
    engine = new_engine()
    herd = [call(PROMPT, max_tokens=2, temperature=1.0) for _ in range(10)]
    finish(engine, *herd)
    stats = engine.stats()
    assert stats.computed_tokens == len(PROMPT) + 9 + 10
    assert stats.hit_tokens == 9 * (len(PROMPT) - 1)
    assert len({one.done.token_ids for one in herd}) > 5, "unseeded samples differ"


def test_seeds_decide() -> None:
    def run(*seeds: int | None) -> list[tuple[int, ...]]:
        calls = [call(PROMPT, max_tokens=12, temperature=1.5, seed=seed) for seed in seeds]
        return [done.token_ids for done in finish(new_engine(), *calls)]

    assert run(5, 6, 5)[0] == run(5)[0] == run(8, 5)[1]
    one, two = run(5, 6)
    assert one != two
    assert len(set(run(*[None] * 6))) == 6


def test_logprobs_of_a_generation() -> None:
    (done,) = finish(new_engine(), call(PROMPT, max_tokens=4, logprobs=2))
    history = list(PROMPT)
    for token, logprob in zip(done.token_ids, done.logprobs, strict=True):
        want = torch.from_numpy(next_logits(history, 29)).log_softmax(-1)
        assert logprob.token_id == token and logprob.logprob == pytest.approx(float(want[token]), abs=1e-4)
        assert [top for top, _ in logprob.top] == want.topk(2).indices.tolist()
        history.append(token)


def test_end_of_sequence_and_stop_tokens() -> None:
    tokens = expected_tokens(PROMPT, 30)
    stop = next(token for i, token in enumerate(tokens) if i >= 4 and token not in tokens[:i] and token < 26)
    at = tokens.index(stop)
    engine = new_engine(eos_token_ids=(stop,))
    (done,) = finish(engine, call(PROMPT, max_tokens=30, logprobs=0))
    assert (done.token_ids, done.finish_reason, done.matched) == (tokens[:at], "stop", stop)
    assert done.generated_tokens == at + 1 and len(done.logprobs) == at
    (ignored,) = finish(engine, call(PROMPT, max_tokens=30, ignore_eos=True))
    assert (ignored.token_ids, ignored.finish_reason) == (tokens, "length")
    (named,) = finish(new_engine(), call(PROMPT, max_tokens=30, stop_token_ids=(stop,)))
    assert (named.token_ids, named.matched) == (tokens[:at], stop)
    (longer,) = finish(engine, call(PROMPT, max_tokens=30, min_tokens=at + 3))
    assert longer.token_ids[:at] == tokens[:at] and longer.generated_tokens >= at + 3
    assert stop not in longer.token_ids


@pytest.mark.parametrize("pipelined", [False, True])
def test_stop_strings_end_the_text_before_them(pipelined: bool) -> None:
    text = toy_decode(expected_tokens(PROMPT, 40))
    for start in range(2, 30, 3):
        stop = (text[start : start + 3], "never there")
        (done,) = finish(new_engine(pipelined=pipelined), call(PROMPT, max_tokens=40, stop=stop))
        found = find_stop(text, stop)
        assert found is not None
        assert (done.text, done.finish_reason, done.matched) == (text[: found[0]], "stop", found[1])
        assert toy_decode(done.token_ids) + done.tail == done.text


def test_nothing_to_do_is_done_at_once() -> None:
    engine = new_engine()
    (empty,) = finish(engine, call(PROMPT, max_tokens=0))
    assert (empty.text, empty.token_ids, empty.finish_reason, empty.prompt_tokens) == ("", (), "length", 8)
    (scored,) = finish(engine, call(PROMPT, score_from=8))
    assert scored.logprobs == ()
    assert engine.stats().steps == 0


def want_scores(tokens: list[int], start: int) -> list[float]:
    rows = [torch.from_numpy(next_logits(tokens[:i], 29)).log_softmax(-1)[tokens[i]] for i in range(start, len(tokens))]
    return [float(row) for row in rows]


@pytest.mark.parametrize("chunk_tokens", [512, 3])
@pytest.mark.parametrize("start", [1, 4, 11])
def test_scores(chunk_tokens: int, start: int) -> None:
    tokens = [*PROMPT, 7, 7, 3, 28]
    engine = new_engine(chunk_tokens=chunk_tokens)
    finish(engine, call(PROMPT, max_tokens=3))
    one = call(tokens, score_from=start, logprobs=1)
    (done,) = finish(engine, one)
    assert [score.token_id for score in done.logprobs] == tokens[start:]
    assert [score.logprob for score in done.logprobs] == pytest.approx(want_scores(tokens, start), abs=1e-4)
    assert all(len(score.top) == 1 for score in done.logprobs)
    assert done.cached_tokens == min(start - 1, len(PROMPT))
    assert (done.text, done.generated_tokens, len(one.events)) == ("", 0, 1)


def test_choices_after_one_prompt_share_it() -> None:
    engine = new_engine()
    options = [[*PROMPT, i, i + 1] for i in range(5)]
    finish(engine, *[call(option, score_from=len(PROMPT)) for option in options])
    assert engine.stats().computed_tokens == len(PROMPT) + 1 + 4 * 2


@pytest.mark.parametrize(
    ("bad", "kind", "words"),
    [
        (call([]), RequestError, "the prompt is empty"),
        (call([1, 29]), RequestError, "token id 29 at position 1 is outside the vocabulary of 29"),
        (call([1, -1]), RequestError, "token id -1 at position 1"),
        (call([1, "x"]), RequestError, "not 64-bit integers"),  # type: ignore[list-item]
        (call([1, 1.5]), RequestError, "not 64-bit integers"),  # type: ignore[list-item]
        (call([1, 1 << 70]), RequestError, "not 64-bit integers"),
        (call([1, [2]]), RequestError, "not a flat list"),  # type: ignore[list-item]
        (call([1] * 150, max_tokens=60), ContextOverflow, "150 prompt tokens and max_tokens=60 are 210 tokens"),
        (call([1] * 150, max_tokens=60), ContextOverflow, "help: set max_tokens to at most 50"),
        (call([1] * 201, score_from=3), ContextOverflow, "context holds 200"),
        (call([1, 2], top_p=0.0), RequestError, "top_p must be in"),
        (call([1, 2], temperature=math.inf), RequestError, "temperature must be >= 0 and finite"),
        (call([1, 2], frequency_penalty=math.nan), RequestError, "frequency_penalty must be finite"),
        (call([1, 2], temperature=1.0, seed=1.5), BackendError, "seed must be an int, got 1.5"),
        (call([1, 2], logprobs=0.5), BackendError, "logprobs must be an int, got 0.5"),
        (call([1, 2], presence_penalty="x"), BackendError, "presence_penalty must be a number, got 'x'"),
        (call([1, 2], stop="ab"), BackendError, "stop must be a tuple of str, got 'ab'"),
        (call([1, 2], stop_token_ids=(0.5,)), BackendError, "stop_token_ids must be a tuple of int"),
        (call([1, 2], stop=("",)), RequestError, "a stop string is empty"),
        (call([1, 2], stop_token_ids=(99,)), RequestError, "stop token id 99"),
        (call([1, 2], score_from=0), RequestError, "score_from must be between 1 and"),
        (call([1, 2], score_from=3), RequestError, "score_from must be between 1 and"),
        (call([1] * 90, max_tokens=20), RequestError, "needs KV for 109 tokens"),
    ],
)
def test_a_bad_request_fails_alone(bad: Call, kind: type[Exception], words: str) -> None:
    engine = new_engine(kv_tokens=100)
    good = call(PROMPT, max_tokens=5)
    bad.events.clear()
    finish(engine, bad, good)
    assert good.done.token_ids == expected_tokens(PROMPT, 5)
    assert type(bad.error) is kind and words in str(bad.error)


@pytest.mark.parametrize("name", ["kv_tokens", "max_running", "chunk_tokens"])
def test_an_engine_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be at least 1, got 0"):
        new_engine(**{name: 0})


def test_an_order_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="order must be 'prefix' or 'service', got 'lpm'"):
        new_engine(order="lpm")


@pytest.mark.parametrize("params", [{}, {"stop": ("zz",)}, {"logprobs": 2}, {"temperature": 0.9, "seed": 4}])
def test_who_wants_no_deltas_gets_the_end_alone(params: dict[str, Any]) -> None:
    told, quiet = call(PROMPT, max_tokens=9, **params), call(PROMPT, max_tokens=9, **params)
    quiet.request.wants_deltas = False
    engine = new_engine()
    for one in (told, quiet):
        engine.submit(one.request)
    while engine.step():
        pass
    (end,), done = quiet.events, told.done
    assert len(told.events) > 1 and done.text
    assert (end.text, end.token_ids, end.logprobs) == (done.text, done.token_ids, done.logprobs)


def test_nan_logits_fail_their_request_alone() -> None:
    poisoned = [9, 9, 9]
    engine = new_engine(FakeModel(poison=lambda history: history[:3] == poisoned))
    good, bad, score = call(PROMPT, max_tokens=5), call(poisoned, max_tokens=5), call([*poisoned, 1], score_from=3)
    finish(engine, good, bad, score)
    assert good.done.token_ids == expected_tokens(PROMPT, 5)
    assert isinstance(bad.error, BackendError) and "no finite maximum" in str(bad.error)
    assert isinstance(score.error, BackendError) and "NaN" in str(score.error)


def test_a_failing_model_fails_its_batch_and_the_engine_goes_on() -> None:
    model = FakeModel()
    engine = new_engine(model)
    calls = [call(tokens, max_tokens=6) for tokens in prompts(5)]
    for one in calls:
        engine.submit(one.request)
    engine.step()
    model.fail_on = lambda batch: True
    engine.step()
    model.fail_on = lambda batch: False
    for one in calls:
        assert isinstance(one.error, BackendError) and "RuntimeError: the fake model" in str(one.error)
    assert finish(engine, call(PROMPT, max_tokens=3))[0].token_ids == expected_tokens(PROMPT, 3)


def test_a_sink_that_raises_harms_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    def sink(event: Event) -> None:
        raise ValueError("no, thank you")

    engine = new_engine()
    good = call(PROMPT, max_tokens=5)
    for last in (False, True):
        params = SamplingParams(max_tokens=1 if last else 5)
        engine.submit(EngineRequest(PROMPT[:4], params, sink, None, id=77))
    finish(engine, good)
    assert good.done.token_ids == expected_tokens(PROMPT, 5)
    assert "the sink of request 77 raised" in caplog.text
    assert engine.stats().generated_tokens == 5 + 1 + 1, "they are dropped, not served to the end"
    engine.check_idle()


def test_a_detokenizer_that_raises_fails_its_request_alone() -> None:
    class Picky(ToyStream):
        def step(self, token_id: int, /) -> str:
            if token_id == target:
                raise KeyError("no such token")
            return super().step(token_id)

    target = expected_tokens(PROMPT, 3)[2]
    other = next(p for p in prompts(20) if target not in expected_tokens(p, 5))
    engine = Engine(FakeModel(), Picky, kv_tokens=500, check=True)
    good, bad = call(other, max_tokens=5), call(PROMPT, max_tokens=9)
    finish(engine, good, bad)
    assert good.done.token_ids == expected_tokens(other, 5)
    assert "KeyError" in str(bad.error)


@pytest.mark.parametrize("pipelined", [False, True])
def test_cancelling_at_any_step(pipelined: bool) -> None:
    for steps in range(9):
        engine = new_engine(chunk_tokens=4, pipelined=pipelined)
        victim, other = call(PROMPT, max_tokens=6), call(PROMPT[:5], max_tokens=6)
        engine.submit(victim.request)
        engine.submit(other.request)
        for _ in range(steps):
            engine.step()
        engine.cancel(victim.request)
        engine.cancel(victim.request)
        finish(engine)
        done = victim.done
        assert other.done.token_ids == expected_tokens(PROMPT[:5], 6)
        assert done.token_ids == expected_tokens(PROMPT, 6)[: len(done.token_ids)]
        assert done.finish_reason == ("cancelled" if len(done.token_ids) < 6 else "length")
        engine.clear_cache()
        assert engine.stats().used == 0


class Waiter:
    """A sink that lets the test wait for a request's last event."""

    def __init__(self, tokens: list[int], **params: Any) -> None:
        self.events: list[Event] = []
        self.over = threading.Event()
        self.request = EngineRequest(tokens, SamplingParams(**params), self.take)

    def take(self, event: Event) -> None:
        self.events.append(event)
        if not isinstance(event, Delta):
            self.over.set()

    def wait(self) -> Call:
        assert self.over.wait(30), "no answer within 30 seconds"
        return Call(self.request, self.events)


@pytest.mark.parametrize("pipelined", [False, True])
def test_the_thread_serves_many_submitters(pipelined: bool) -> None:
    engine = new_engine(max_running=4, pipelined=pipelined)
    engine.start()
    waiters = [Waiter(tokens, max_tokens=6) for tokens in prompts(24)]

    def submit(part: list[Waiter]) -> None:
        for waiter in part:
            engine.submit(waiter.request)

    threads = [threading.Thread(target=submit, args=(waiters[i::3],)) for i in range(3)]
    for thread in threads:
        thread.start()
    for waiter in waiters:
        assert waiter.wait().done.token_ids == expected_tokens(waiter.request.token_ids, 6)
    with pytest.raises(UsageError, match="thread is running"):
        engine.step()
    engine.clear_cache()
    engine.check_idle()
    late = Waiter(PROMPT, max_tokens=3)
    engine.submit(late.request)
    assert late.wait().done.token_ids == expected_tokens(PROMPT, 3)
    engine.close()
    assert engine.stats().running == engine.stats().waiting == 0


@pytest.mark.parametrize("pipelined", [False, True])
def test_close_fails_what_is_pending_and_what_comes_later(pipelined: bool) -> None:
    engine = new_engine(max_running=1, pipelined=pipelined)
    engine.start()
    pending = [Waiter([i], max_tokens=190) for i in range(4)]
    for waiter in pending:
        engine.submit(waiter.request)
    engine.close()
    engine.close()
    late = Waiter(PROMPT)
    engine.submit(late.request)
    engine.cancel(late.request)
    ends = [waiter.wait().events[-1] for waiter in [*pending, late]]
    cancelled = [isinstance(end, Failed) and isinstance(end.error, Cancelled) for end in ends]
    assert cancelled[-1] and sum(cancelled) >= 2
    assert all(cancelled[i] or not isinstance(end, Failed) for i, end in enumerate(ends))
    engine.check_idle()
    with pytest.raises(UsageError, match="closed"):
        engine.start()


def test_close_without_a_thread_fails_what_is_pending() -> None:
    engine, one = new_engine(), call(PROMPT)
    engine.submit(one.request)
    engine.close()
    assert isinstance(one.error, Cancelled)


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_sink_may_submit_cancel_and_close(pipelined: bool) -> None:
    engine = new_engine(pipelined=pipelined)
    second = Waiter(PROMPT, max_tokens=4)
    third = Waiter(PROMPT[:3], max_tokens=150)

    def sink(event: Event) -> None:
        if not isinstance(event, Delta):
            engine.submit(second.request)
            engine.submit(third.request)
            engine.cancel(third.request)
            engine.clear_cache()

    engine.submit(EngineRequest(PROMPT, SamplingParams(max_tokens=2), sink))
    engine.start()
    assert second.wait().done.token_ids == expected_tokens(PROMPT, 4)
    assert third.wait().done.finish_reason == "cancelled"
    closer = Waiter(PROMPT, max_tokens=2)
    take = closer.take
    closer.request.sink = lambda event: (engine.close(), take(event))[1]
    engine.submit(closer.request)
    assert closer.over.wait(30)
    engine.close()


def test_a_fault_of_the_engine_itself_reaches_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = new_engine()
    faults = iter([True])

    def broken() -> list[Any]:
        if next(faults, False):
            raise ZeroDivisionError("a bug")
        return original()

    original = engine._scheduler.admit
    monkeypatch.setattr(engine._scheduler, "admit", broken)
    first, second = Waiter(PROMPT, max_tokens=3), Waiter(PROMPT, max_tokens=3)
    engine.submit(first.request)  # before the thread runs, so that its first step has the request
    engine.start()
    assert "ZeroDivisionError: a bug" in str(first.wait().error)
    engine.submit(second.request)
    assert second.wait().done.token_ids == expected_tokens(PROMPT, 3)
    with pytest.raises(ZeroDivisionError):
        engine.close()


def test_an_idle_engine_sleeps() -> None:
    engine = new_engine()
    engine.start()
    waiter = Waiter(PROMPT, max_tokens=2)
    engine.submit(waiter.request)
    waiter.wait()
    steps: list[int] = []
    engine._step, original = (lambda: (steps.append(1), original())[1]), engine._step  # type: ignore[method-assign]
    time.sleep(0.2)
    assert not steps
    engine.close()


def test_default_size_of_the_cache() -> None:
    layout = KVLayout(1, 1, 2, torch.float32, torch.device("cpu"))
    assert default_kv_tokens(layout, 100, 4) == 400, "no more than max_running whole contexts"
    huge = KVLayout(100, 100, 1000, torch.float32, torch.device("cpu"))
    some = default_kv_tokens(huge, 10_000, 256)
    assert 0 < some * huge.bytes_per_token <= max(free_memory(torch.device("cpu")), huge.bytes_per_token)
    middle = KVLayout(32, 8, 128, torch.float16, torch.device("cpu"))
    tokens = default_kv_tokens(middle, 100, 10**6)
    assert 0 < tokens * middle.bytes_per_token <= max(8 << 30, 100 * middle.bytes_per_token)
    assert free_memory(torch.device("cpu")) > 0
    assert Engine(FakeModel(), ToyStream, max_running=3).stats().capacity == 600


def check_embedding(one: Call) -> None:
    """Whether the hidden states of the fake model's, which are its logits, are what a request was told."""
    tokens, first = one.request.token_ids, one.request.embed_from
    assert first is not None
    if one.done.finish_reason == "cancelled":
        assert one.done.embedding is None
        return
    want = np.mean([next_logits(tokens[: end + 1], 29) for end in range(first, len(tokens))], axis=0)
    assert one.done.embedding is not None
    np.testing.assert_allclose(one.done.embedding, want, rtol=1e-5, atol=1e-6)


class EngineMachine(RuleBasedStateMachine):
    """Submits, cancels and steps at random with a small pool; every answer must be the model's."""

    tokens = st.lists(st.integers(0, 2), min_size=1, max_size=14)
    pipelined = False

    def __init__(self) -> None:
        super().__init__()
        self.engine = new_engine(kv_tokens=40, max_running=4, chunk_tokens=6, pipelined=self.pipelined)
        self.calls: list[Call] = []
        self.cancelled: set[int] = set()

    def submit(self, one: Call) -> None:
        self.calls.append(one)
        self.engine.submit(one.request)

    @rule(tokens=tokens, max_tokens=st.integers(0, 10), copies=st.integers(1, 3))
    def generate(self, tokens: list[int], max_tokens: int, copies: int) -> None:
        for _ in range(copies):
            self.submit(call(tokens, max_tokens=max_tokens))

    @rule(tokens=tokens, data=st.data())
    def score(self, tokens: list[int], data: st.DataObject) -> None:
        self.submit(call(tokens, score_from=data.draw(st.integers(1, len(tokens)))))

    @rule(tokens=tokens, data=st.data())
    def embed(self, tokens: list[int], data: st.DataObject) -> None:
        self.submit(call(tokens, embed_from=data.draw(st.integers(0, len(tokens) - 1))))

    @rule(tokens=st.lists(st.integers(0, 1), min_size=25, max_size=40))
    def generate_long(self, tokens: list[int]) -> None:
        self.submit(call(tokens, max_tokens=4))

    @rule(count=st.integers(1, 6))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.engine.step()

    @rule(which=st.integers(0, 1000))
    def cancel(self, which: int) -> None:
        if self.calls:
            self.cancelled.add(which % len(self.calls))
            self.engine.cancel(self.calls[which % len(self.calls)].request)

    @rule()
    def clear(self) -> None:
        self.engine.clear_cache()

    @invariant()
    def holds(self) -> None:
        self.engine._scheduler.check()

    def teardown(self) -> None:
        finish(self.engine)
        self.engine.check_idle()
        for i, one in enumerate(self.calls):
            self.check(one, cancelled=i in self.cancelled)

    def check(self, one: Call, cancelled: bool) -> None:
        tokens, params = one.request.token_ids, one.request.params
        if one.request.embed_from is not None:
            assert (one.done.finish_reason == "cancelled") <= cancelled
            check_embedding(one)
            return
        if one.request.score_from is None and len(tokens) + max(params.max_tokens - 1, 0) > 40 and params.max_tokens:
            assert isinstance(one.error, RequestError)
            return
        done = one.done
        assert done.finish_reason != "cancelled" or cancelled
        if one.request.score_from is None:
            want = expected_tokens(tokens, params.max_tokens)
            assert done.token_ids == (want[: len(done.token_ids)] if done.finish_reason == "cancelled" else want)
        elif done.finish_reason != "cancelled":
            got = [score.logprob for score in done.logprobs]
            assert np.allclose(got, want_scores(tokens, one.request.score_from), atol=1e-4)


EngineMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestEngineMachine = EngineMachine.TestCase


class PipelinedMachine(EngineMachine):
    pipelined = True


PipelinedMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestPipelinedMachine = PipelinedMachine.TestCase
