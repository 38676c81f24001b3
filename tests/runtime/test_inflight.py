"""Steps that are launched before the one before is collected: the same results, in another order of work."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ramify.backends.tiny import model_dir
from ramify.ir.errors import BackendError, Cancelled
from ramify.runtime import engine as engine_module
from ramify.runtime import inflight, plan, sampler
from ramify.runtime.batch import Batch
from ramify.runtime.constraint import Constraint
from ramify.runtime.engine import Engine
from ramify.runtime.inflight import InFlight
from ramify.runtime.matcher import Grammars
from ramify.runtime.plan import Chosen, build_batch
from ramify.runtime.request import Delta, Done, EngineRequest, Event, SamplingParams
from ramify.runtime.sampler import Choice, SampleRow
from ramify.runtime.tokens import Tokenizer
from ramify.runtime.transfer import Download

from .fakes import Call, FakeConfig, FakeModel, RepeatingModel, call, expected_tokens, finish, new_engine
from .test_lookup import CONSTRAINTS, essence

TOKENIZER = Tokenizer.load(Path(model_dir()))
VOCAB = TOKENIZER.vocab_size
GRAMMARS = Grammars(TOKENIZER, VOCAB)
END = TOKENIZER.eos_ids[0]
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
SAMPLED: dict[str, Any] = {"temperature": 1.0, "top_p": 0.8}


class LateDownload:
    """Numbers of a device that are not there before somebody has waited for them: until then the host has others."""

    def __init__(self, values: torch.Tensor) -> None:
        self._values = values.clone()
        self._host = torch.ones_like(values)
        self.known = None

    def result(self) -> torch.Tensor:
        self._host.copy_(self._values)
        return self._host


@pytest.fixture
def late_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "Download", LateDownload)


def random_params(rng: random.Random, number: int, vocab_size: int, picky: float) -> dict[str, Any]:
    """What needs nothing of the host, and, so often, what does."""
    params: dict[str, Any] = {"max_tokens": rng.randint(1, 25), "seed": number}
    if rng.random() < 0.5:
        params |= {"temperature": rng.choice([0.3, 1.0]), "top_p": rng.choice([1.0, 0.8])}
        params |= {"top_k": rng.choice([0, 0, 3]), "min_p": rng.choice([0.0, 0.0, 0.1])}
    if rng.random() < 0.3:
        params |= {"stop": tuple(rng.sample(["a", "bc", "é", "q", "t"], 2))}
    if rng.random() < 0.3:
        params |= {"stop_token_ids": tuple(rng.randrange(vocab_size) for _ in range(3))}
    if rng.random() < picky:
        params |= {"min_tokens": rng.randint(0, params["max_tokens"]), "stop_token_ids": (rng.randrange(vocab_size),)}
    if rng.random() < picky:
        params |= {"frequency_penalty": 0.3}
    if rng.random() < picky:
        params |= {"logprobs": rng.randint(0, 2)}
    if rng.random() < picky:
        params |= {"processors": (lambda token_ids, logits: logits / 2,)}
    return params


def workload(seed: int, vocab_size: int = 29, constraints: list[Constraint] | None = None) -> list[Call]:
    rng = random.Random(seed)
    stems = [[rng.randrange(vocab_size) for _ in range(rng.randint(4, 20))] for _ in range(3)]
    picky = 0.08 * (seed % 2)
    calls = []
    for number in range(18):
        stem = rng.choice(stems)
        tokens = [*stem[: rng.randint(1, len(stem))], *(rng.randrange(vocab_size) for _ in range(rng.randint(0, 5)))]
        if rng.random() < picky:
            calls.append(call(tokens, score_from=rng.randint(1, len(tokens))))
            continue
        params = random_params(rng, number, vocab_size, picky)
        if constraints and rng.random() < 0.2:
            params |= {"constraint": rng.choice(constraints), "max_tokens": 40}
            params.pop("processors", None)
        calls.append(call(tokens, **params))
    return calls


def serve(engine: Engine, calls: list[Call], rng: random.Random, cancelled: float = 0.0) -> None:
    """Submits and cancels at random moments, and steps until all is done."""
    waiting = list(calls)
    while engine.step() or waiting:
        for _ in range(min(len(waiting), rng.choice([0, 0, 1, 3]))):
            engine.submit(waiting.pop().request)
        if rng.random() < cancelled:
            engine.cancel(rng.choice(calls).request)
    engine.check_idle()


OPTIONS: list[dict[str, Any]] = [
    {},
    {"prefix_cache": False},
    {"chunk_tokens": 3},
    {"kv_tokens": 60, "max_running": 4},
    {"kv_tokens": 90, "order": "service"},
    {"kv_tokens": 70, "host_kv_tokens": 80},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.usefixtures("late_downloads")
def test_pipelining_changes_no_result(options: dict[str, Any]) -> None:
    for seed in range(4):
        plain, pipelined = (
            new_engine(pipelined=pipelined, eos_token_ids=(5,), **options) for pipelined in (False, True)
        )
        wanted, calls = workload(seed), workload(seed)
        finish(plain, *wanted)
        serve(pipelined, calls, random.Random(seed))
        assert [essence(one.done) for one in calls] == [essence(one.done) for one in wanted]
        assert pipelined.stats().generated_tokens == plain.stats().generated_tokens
        assert seed % 2 or pipelined.stats().discarded_tokens > 5
        assert plain.stats().discarded_tokens == 0


@pytest.mark.usefixtures("late_downloads")
def test_constrained_requests_among_free_ones() -> None:
    def engine(pipelined: bool) -> Engine:
        return Engine(
            RepeatingModel(FakeConfig(VOCAB, 1000)),
            TOKENIZER.decode_stream,
            grammars=GRAMMARS,
            eos_token_ids=(END,),
            kv_tokens=500,
            check=True,
            pipelined=pipelined,
        )

    for seed in range(3):
        wanted, calls = (workload(seed, VOCAB, CONSTRAINTS) for _ in range(2))
        finish(engine(pipelined=False), *wanted)
        serve(engine(pipelined=True), calls, random.Random(seed))
        assert [essence(one.done) for one in calls] == [essence(one.done) for one in wanted]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.usefixtures("late_downloads")
def test_cancelled_at_any_moment(options: dict[str, Any]) -> None:
    for seed in range(4):
        wanted, calls = workload(seed), workload(seed)
        finish(new_engine(**options), *wanted)
        serve(new_engine(pipelined=True, **options), calls, random.Random(seed), cancelled=0.5)
        for one, other in zip(calls, wanted, strict=True):
            done, whole = one.done, other.done
            if done.finish_reason == "cancelled":
                assert done.token_ids == whole.token_ids[: len(done.token_ids)]
            else:
                assert essence(done) == essence(whole)


class Journal:
    """What an engine launches and collects, by the steps' numbers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entries: list[str] = []
        numbers: dict[InFlight, int] = {}
        launch, result = InFlight.launch, InFlight.result

        def launched(step: InFlight, *arguments: Any) -> None:
            numbers[step] = len(numbers)
            self.entries.append(f"launch {numbers[step]}")
            launch(step, *arguments)

        def collected(step: InFlight) -> Any:
            self.entries.append(f"collect {numbers[step]}")
            return result(step)

        monkeypatch.setattr(InFlight, "launch", launched)
        monkeypatch.setattr(InFlight, "result", collected)


def ahead(count: int, first: int = 0) -> list[str]:
    """Steps that are launched one ahead."""
    entries = [f"launch {first}"]
    for number in range(first, first + count - 1):
        entries += [f"launch {number + 1}", f"collect {number}"]
    return [*entries, f"collect {first + count - 1}"]


def in_turn(count: int, first: int = 0) -> list[str]:
    return [f"{what} {number}" for number in range(first, first + count) for what in ("launch", "collect")]


def test_a_step_is_launched_before_the_last_one_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(monkeypatch)
    engine = new_engine(pipelined=True)
    finish(engine, call(PROMPT, max_tokens=6), call(PROMPT[:5], max_tokens=4, temperature=1.0, seed=1))
    assert journal.entries == ahead(6), "the last token of each is known to be the last"
    assert engine.stats().discarded_tokens == 0
    journal.entries.clear()
    finish(new_engine(pipelined=False), call(PROMPT, max_tokens=6))
    assert journal.entries == in_turn(6, first=6)


def test_a_step_with_an_edited_row_is_collected_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as somebody is there whose next step depends on the token, in whatever way."""
    needs: list[dict[str, Any]] = [
        {"repetition_penalty": 1.2},
        {"logprobs": 0},
        {"min_tokens": 3, "stop_token_ids": (28,)},
        {"processors": (lambda token_ids, logits: logits,)},
    ]
    for params in needs:
        with monkeypatch.context() as patched:
            journal = Journal(patched)
            finish(new_engine(pipelined=True), call(PROMPT, max_tokens=6), call([9, 9], max_tokens=3, **params))
            assert journal.entries == [*in_turn(3), *ahead(3, first=3)]


def test_a_score_is_collected_before_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(monkeypatch)
    scored = call(PROMPT, score_from=2)
    finish(new_engine(pipelined=True, chunk_tokens=4), scored)
    assert journal.entries == in_turn(2) and len(scored.done.logprobs) == 6


@dataclass
class Clock:
    """Simulated seconds: of the host, and when the device will be done with what it was given."""

    now: float = 0.0
    busy_until: float = 0.0


class SlowModel(FakeModel):
    """Its device takes four seconds for a step."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def forward(self, batch: Batch) -> torch.Tensor:
        self._clock.busy_until = max(self._clock.now, self._clock.busy_until) + 4
        return super().forward(batch)


@pytest.mark.parametrize(("pipelined", "seconds"), [(False, 50), (True, 41)])
def test_the_hosts_work_hides_behind_the_devices(
    monkeypatch: pytest.MonkeyPatch, pipelined: bool, seconds: float
) -> None:
    """Each token takes the host a second. What a step is said to take is the device's time, either way."""
    clock = Clock()

    class Waiting(LateDownload):
        def __init__(self, values: torch.Tensor) -> None:
            super().__init__(values)
            self._ready = clock.busy_until

        def result(self) -> torch.Tensor:
            clock.now = max(clock.now, self._ready)
            return super().result()

    def sink(event: Event) -> None:
        clock.now += isinstance(event, Delta)

    for module in (engine_module, inflight):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(sampler, "Download", Waiting)
    engine = new_engine(SlowModel(clock), pipelined=pipelined)
    told: list[float] = []
    monkeypatch.setattr(engine._scheduler, "has_taken", lambda chunks, num_prefilled, taken: told.append(taken))
    engine.submit(EngineRequest(PROMPT, SamplingParams(max_tokens=10), sink))
    finish(engine)
    assert clock.now == seconds
    assert told == [4.0] * 10


def test_what_is_computed_for_nothing_counts_apart() -> None:
    """An end that nobody could foresee costs a row, and leaves what it would have left otherwise."""
    tokens = expected_tokens(PROMPT, 30)
    stop = next(token for i, token in enumerate(tokens) if i >= 4 and token not in tokens[:i])
    told = []
    for pipelined in (False, True):
        model = FakeModel()
        engine = new_engine(model, pipelined=pipelined)
        (first,) = finish(engine, call(PROMPT, max_tokens=30, stop_token_ids=(stop,)))
        stats = engine.stats()
        assert sum(model.rows) == stats.computed_tokens + stats.discarded_tokens
        assert stats.discarded_tokens == pipelined
        (second,) = finish(engine, call([*PROMPT, *first.token_ids, stop, 7], max_tokens=4))
        told.append((essence(first), essence(second), second.cached_tokens, engine.stats().computed_tokens))
        engine.clear_cache()
        assert engine.stats().used == 0
    assert told[0] == told[1]


@pytest.mark.usefixtures("late_downloads")
def test_draws_that_need_all_tokens_are_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the likeliest tokens are too few to draw from, the next step has gone on from a wrong token."""
    calls = [[call([*PROMPT, i], max_tokens=12, seed=i, **SAMPLED) for i in range(8)] for _ in range(2)]
    wanted = [essence(done) for done in finish(new_engine(), *calls[0])]
    monkeypatch.setattr(sampler, "_CANDIDATES", 2)
    model = FakeModel()
    engine = new_engine(model, pipelined=True, kv_tokens=120)
    assert [essence(done) for done in finish(engine, *calls[1])] == wanted
    stats = engine.stats()
    assert stats.discarded_tokens > 8
    assert sum(model.rows) == stats.computed_tokens + stats.discarded_tokens
    follow_up = [*PROMPT, 0, *wanted[0][0], 7]
    assert finish(engine, call(follow_up, max_tokens=3))[0].token_ids == expected_tokens(follow_up, 3)


def test_nan_fails_its_request_alone() -> None:
    model = FakeModel(poison=lambda history: len(history) > 12 and history[0] == 9)
    engine = new_engine(model, pipelined=True)
    good, bad = call(PROMPT, max_tokens=9), call([9, 9, 9], max_tokens=20)
    finish(engine, good, bad)
    assert good.done.token_ids == expected_tokens(PROMPT, 9)
    assert isinstance(bad.error, BackendError) and "no finite maximum" in str(bad.error)
    assert len(bad.events) == 1 + 13 - 3
    engine.check_idle()


def test_a_launch_that_fails_leaves_what_came_before() -> None:
    model = FakeModel()
    engine = new_engine(model, pipelined=True)
    calls = [call([i, *PROMPT], max_tokens=9) for i in range(3)]
    model.fail_on = lambda batch: len(model.rows) == 4
    finish(engine, *calls)
    for one in calls:
        assert "RuntimeError: the fake model" in str(one.error)
        assert [event.token_ids[0] for event in one.events[:-1]] == [*expected_tokens(one.request.token_ids, 3)]
    assert finish(engine, call(PROMPT, max_tokens=3))[0].token_ids == expected_tokens(PROMPT, 3)
    engine.check_idle()


def test_a_device_that_fails_later_fails_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(LateDownload):
        def result(self) -> torch.Tensor:
            raise RuntimeError("the device is lost")

    engine = new_engine(pipelined=True)
    one, cancelled = call(PROMPT, max_tokens=9), call(PROMPT[:4], max_tokens=9)
    for each in (one, cancelled):
        engine.submit(each.request)
    engine.step()
    monkeypatch.setattr(sampler, "Download", Broken)
    engine.step()
    engine.cancel(cancelled.request)
    monkeypatch.undo()
    finish(engine)
    assert "the device is lost" in str(one.error) and cancelled.done.finish_reason == "cancelled"
    engine.check_idle()


def test_a_sink_that_raises_and_a_request_that_comes_again() -> None:
    """A row of a sequence that was dropped is nobody's, also when its request was submitted once more."""
    events: list[Event] = []
    again = EngineRequest(PROMPT, SamplingParams(max_tokens=6), events.append)
    dropped = EngineRequest(PROMPT[:4], SamplingParams(max_tokens=6), lambda event: 1 / 0)
    engine = new_engine(pipelined=True)
    engine.submit(again)
    engine.submit(dropped)
    for _ in range(3):
        engine.step()
    engine.cancel(again)
    engine.submit(again)
    finish(engine)
    first, second = (event for event in events if isinstance(event, Done))
    assert (first.finish_reason, second.finish_reason) == ("cancelled", "length")
    assert second.token_ids == expected_tokens(PROMPT, 6)
    engine.check_idle()


def test_closing_with_a_step_in_flight() -> None:
    engine, one = new_engine(pipelined=True), call(PROMPT, max_tokens=9)
    engine.submit(one.request)
    for _ in range(2):
        assert engine.step()
    engine.close()
    assert isinstance(one.error, Cancelled)
    engine.check_idle()


@pytest.mark.parametrize("lookup", [True, "always"])
def test_drafts_need_the_newest_token(monkeypatch: pytest.MonkeyPatch, lookup: Any) -> None:
    journal = Journal(monkeypatch)
    finish(new_engine(RepeatingModel(), lookup=lookup, pipelined=True), call(PROMPT * 2, max_tokens=9))
    assert journal.entries == in_turn(len(journal.entries) // 2)


ROWS = [
    SampleRow(SamplingParams(**params), seed, np.array(PROMPT), 3)
    for seed, params in enumerate(
        (
            {},
            {"temperature": 1.0},
            {"temperature": 0.7, "top_p": 0.9},
            {"temperature": 0.7, "top_k": 3},
            {"temperature": 0.7, "top_k": 600},
            {"temperature": 0.7, "min_p": 0.1},
        )
    )
]


def launch_choice(logits: torch.Tensor) -> list[Choice]:
    """Choices of several mixes of rows, as launched."""
    mixes = [ROWS, ROWS[:1], ROWS[1:2], ROWS[2:3], ROWS[3:], ROWS[:2], ROWS[4:5]]
    return [Choice(logits[: len(rows)], rows) for rows in mixes]


def going_on(engine: Engine, one: Call) -> Callable[[torch.Tensor], Batch]:
    """Builds the batch that goes on from the third of several tokens that are being chosen, on their device."""
    engine.submit(one.request)
    engine.step()
    chunks = engine._scheduler.plan()
    places = {chunks[0].sequence: 2}
    return lambda token_ids: build_batch(chunks, Chosen(token_ids, places), device=token_ids.device)


def test_what_is_launched_looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With tensors that have no values: whatever the host asked of them would be an error."""
    nowhere = torch.device("meta")
    build = going_on(new_engine(pipelined=True), call(PROMPT, max_tokens=3))

    def uploaded(values: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        return torch.empty(len(values), dtype=dtype, device=device)

    class Unseen:
        def __init__(self, values: torch.Tensor) -> None:
            assert values.device == nowhere
            self.known = None

    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.empty(1, device=nowhere).tolist()
    monkeypatch.setattr(sampler, "upload", uploaded)
    monkeypatch.setattr(sampler, "Download", Unseen)
    for choice in launch_choice(torch.empty(len(ROWS), 1000, device=nowhere)):
        assert choice.is_free and choice.token_ids.device == nowhere
    monkeypatch.setattr(plan, "upload", uploaded)
    batch = build(torch.empty(4, dtype=torch.int64, device=nowhere))
    assert batch.token_ids.device == batch.positions.device == nowhere
    assert batch.logit_rows.device.type == "cpu", "whether all rows want logits is told without a look at the device"


def test_steps_that_choose_nothing_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody knew what a chunk of a prompt takes, and the host ran ahead of a GPU by a whole prompt."""
    waited = []

    class Watched(Download):
        def result(self) -> torch.Tensor:
            waited.append(len(super().result()))
            return super().result()

    monkeypatch.setattr(inflight, "Download", Watched)
    finish(new_engine(pipelined=True, chunk_tokens=4), call(list(range(14)), max_tokens=2))
    assert waited == [0, 0, 0], "of four chunks, the last one chooses a token"
