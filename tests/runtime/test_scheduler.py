"""Order, admission, waiting for a shared prefill, and the plan of a step, without a model."""

from __future__ import annotations

import random
from collections.abc import Sequence as Tokens
from typing import Any

import numpy as np
import pytest
from ramify.ir.errors import RequestError
from ramify.runtime.batch import Batch
from ramify.runtime.output import Output
from ramify.runtime.plan import build_batch
from ramify.runtime.pool import KVPool
from ramify.runtime.request import EngineRequest, SamplingParams
from ramify.runtime.scheduler import BATCH_WEIGHT, MAX_OVERTAKEN, ORDER_WINDOW, Scheduler
from ramify.runtime.sequence import Sequence, token_array
from ramify.runtime.uses import Owner, Use

from .fakes import LAYOUT, ToyStream


def new_scheduler(capacity: int = 500, **options: Any) -> Scheduler:
    chosen: dict[str, Any] = {
        "max_running": 8,
        "chunk_tokens": 16,
        "prefix_cache": True,
        "max_logit_rows": 4,
        **options,
    }
    return Scheduler(KVPool(LAYOUT, capacity), **chosen)


class Arrivals:
    """Makes sequences in order of arrival."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(
        self, tokens: Tokens[int], max_tokens: int = 4, score_from: int | None = None, use: Use | None = None
    ) -> Sequence:
        self.count += 1
        request = EngineRequest(list(tokens), SamplingParams(max_tokens=max_tokens), print, score_from, use=use)
        array = token_array(request, vocab_size=1000, context_length=10_000)
        return Sequence(request, array, Output(ToyStream, ()), 0, (), self.count, 0.0)


@pytest.fixture
def arrive() -> Arrivals:
    return Arrivals()


def step(scheduler: Scheduler) -> dict[Sequence, int]:
    """One step without a model: every sequence that got logits draws token 7, and ends at max_tokens."""
    scheduler.admit()
    chunks = scheduler.plan()
    if chunks:
        build_batch(chunks).check()
    for chunk in chunks:
        scheduler.advance(chunk)
        sequence = chunk.sequence
        if chunk.num_logits and not sequence.is_score:
            sequence.append(7)
        if not sequence.is_prefilling and (sequence.is_score or sequence.num_generated == sequence.params.max_tokens):
            scheduler.finish(sequence)
    scheduler.check()
    return {chunk.sequence: chunk.count for chunk in chunks}


def run(scheduler: Scheduler, limit: int = 2000) -> list[dict[Sequence, int]]:
    steps = []
    while scheduler.has_work:
        steps.append(step(scheduler))
        assert len(steps) < limit, "the scheduler does not come to an end"
    return steps


def test_prefill_is_chunked_and_mixed_with_decode(arrive: Arrivals) -> None:
    scheduler = new_scheduler(chunk_tokens=10)
    short, long = arrive(range(6), 5), arrive(range(100, 125), 2)
    scheduler.add(short)
    assert step(scheduler) == {short: 6}
    scheduler.add(long)
    assert step(scheduler) == {short: 1, long: 9}
    assert step(scheduler) == {short: 1, long: 9}
    assert step(scheduler) == {short: 1, long: 7}
    assert step(scheduler) == {short: 1, long: 1}
    assert not scheduler.has_work


def test_prefill_goes_on_when_decoding_takes_the_whole_budget(arrive: Arrivals) -> None:
    scheduler = new_scheduler(chunk_tokens=4)
    decoding = [arrive([i], 50) for i in range(6)]
    for sequence in decoding:
        scheduler.add(sequence)
    for _ in range(5):
        step(scheduler)
    late = arrive([40, 41, 42])
    scheduler.add(late)
    assert step(scheduler)[late] == 1


def test_the_longest_cached_prefix_goes_first(arrive: Arrivals) -> None:
    scheduler = new_scheduler(max_running=1)
    scheduler.add(arrive(range(10), 1))
    run(scheduler)
    for tokens in ([90, 91, 92], [0, 1, 2, 93], [*range(8), 94]):
        scheduler.add(arrive(tokens, 1))
    order = [sequence.request.token_ids[-1] for sequence in (next(iter(chunks)) for chunks in run(scheduler))]
    assert order == [94, 93, 92]


def test_a_large_request_is_not_passed_for_ever_by_small_ones(arrive: Arrivals) -> None:
    scheduler = new_scheduler(capacity=60)
    for i in range(12):
        scheduler.add(arrive([i], 9))
        step(scheduler)
    large = arrive(range(100, 140), 10)
    scheduler.add(large)
    for steps in range(400):
        scheduler.add(arrive([200 + steps], 9))
        step(scheduler)
        if large not in scheduler.waiting:
            return
    raise AssertionError("the large request starves")


def test_equal_prompts_cost_one_prefill(arrive: Arrivals) -> None:
    scheduler = new_scheduler()
    herd = [arrive(range(40), 3) for _ in range(6)]
    for sequence in herd:
        scheduler.add(sequence)
    run(scheduler)
    assert scheduler.computed_tokens == 40 + 5 * 1 + 6 * 2
    assert [sequence.cached for sequence in herd] == [0, 39, 39, 39, 39, 39]


def test_a_shared_part_is_waited_for_as_long_as_it_takes(arrive: Arrivals) -> None:
    scheduler = new_scheduler(chunk_tokens=50)
    first, sharing = arrive(range(120), 2), arrive([*range(30), *range(200, 220)], 2)
    other = arrive([0, 201, 202, 203], 2)
    for sequence in (first, sharing, other):
        scheduler.add(sequence)
    assert step(scheduler) == {first: 50}
    assert step(scheduler) == {first: 50}, "others are admitted when there is budget for them"
    assert step(scheduler) == {first: 20, sharing: 20, other: 3}
    assert (sharing.cached, other.cached) == (30, 1)
    run(scheduler)
    assert scheduler.computed_tokens == 120 + 20 + 3 + 3 * 1


def test_a_shared_part_is_there_before_the_rest_of_its_prompt(arrive: Arrivals) -> None:
    scheduler = new_scheduler(chunk_tokens=60)
    first, sharing = arrive(range(70), 2), arrive([0, 1, 2, 200, 201], 2)
    scheduler.add(first)
    scheduler.add(sharing)
    assert step(scheduler) == {first: 60}
    assert step(scheduler) == {first: 10, sharing: 2} and sharing.cached == 3
    run(scheduler)
    scheduler.tree.clear()
    assert scheduler.pool.used == 0


def test_what_is_not_to_be_planned_comes_in_order_and_waits_for_nobody(arrive: Arrivals) -> None:
    scheduler, owners = new_scheduler(chunk_tokens=64), (Owner(), Owner())
    herd = [arrive(range(20), 2, use=Use(owner, ((), 0), None, plan=False)) for owner in owners]
    for sequence in herd:
        scheduler.add(sequence)
    assert step(scheduler) == dict.fromkeys(herd, 20)
    run(scheduler)
    scheduler = new_scheduler(max_running=1)
    scheduler.add(arrive(range(10), 1))
    run(scheduler)
    for tokens in ([90, 91, 92], [0, 1, 2, 93]):
        scheduler.add(arrive(tokens, 1, use=Use(owners[0], ((), 0), None, plan=False)))
    assert [next(iter(chunks)).tokens[0] for chunks in run(scheduler)] == [90, 0]


def test_room_is_taken_for_the_worst_case_and_the_rest_waits(arrive: Arrivals) -> None:
    scheduler = new_scheduler(capacity=30)
    first, second = arrive(range(10), 11), arrive(range(20, 28), 4)
    scheduler.add(first)
    scheduler.add(second)
    assert step(scheduler) == {first: 10} and scheduler.pool.used == 20
    for _ in range(9):
        assert step(scheduler) == {first: 1}
    assert first in scheduler.running and step(scheduler) == {first: 1}
    assert step(scheduler) == {second: 8}
    run(scheduler)
    assert scheduler.tree.evicted_tokens > 0


def test_waiting_for_memory_does_not_empty_the_cache(arrive: Arrivals) -> None:
    scheduler = new_scheduler(capacity=60)
    scheduler.add(arrive(range(100, 115), 1))
    run(scheduler)
    scheduler.add(arrive(range(30), 11))
    step(scheduler)
    scheduler.add(arrive(range(200, 240), 1))
    step(scheduler)
    assert scheduler.tree.evicted_tokens == 0 and len(scheduler.waiting) == 1
    run(scheduler)


def test_what_can_never_fit_is_refused_with_the_numbers(arrive: Arrivals) -> None:
    scheduler = new_scheduler(capacity=30)
    with pytest.raises(RequestError, match=r"31 tokens \(21 of prompt and 10 to generate\), the cache holds 30"):
        scheduler.add(arrive(range(21), 11))
    scheduler.add(arrive(range(20), 11))
    run(scheduler)


def test_a_pool_full_of_shared_storages_is_emptied_rather_than_stuck(arrive: Arrivals) -> None:
    scheduler = new_scheduler(capacity=60, chunk_tokens=100)
    scheduler.add(arrive(range(50), 1))
    run(scheduler)
    for length in (2, 4, 6):
        scheduler.tree.match(np.arange(length))
    scheduler.add(arrive([0, 1, 2, 3, 4, 5, *range(100, 150)], 3))
    run(scheduler)
    assert scheduler.pool.used <= 60


def test_scoring_asks_for_its_rows_within_the_limit(arrive: Arrivals) -> None:
    scheduler = new_scheduler(chunk_tokens=16, max_logit_rows=3)
    sequence = arrive(range(14), score_from=6)
    scheduler.add(sequence)
    scheduler.admit()
    counts = []
    while scheduler.has_work:
        (chunk,) = scheduler.plan()
        counts.append((chunk.count, chunk.num_logits))
        scheduler.advance(chunk)
        if not sequence.is_prefilling:
            scheduler.finish(sequence)
    assert counts == [(8, 3), (3, 3), (2, 2)], "rows 5..12 have logits"


def test_without_prefix_cache_nothing_is_kept_or_shared(arrive: Arrivals) -> None:
    scheduler = new_scheduler(prefix_cache=False, chunk_tokens=64)
    herd = [arrive(range(10), 3) for _ in range(3)]
    for sequence in herd:
        scheduler.add(sequence)
    run(scheduler)
    assert scheduler.computed_tokens == 3 * 12 and scheduler.pool.used == 0


def test_every_node_is_read_once_for_all_sequences_below_it(arrive: Arrivals) -> None:
    scheduler = new_scheduler(chunk_tokens=200)
    scheduler.add(arrive(range(20), 1))
    run(scheduler)
    prompts = [[*range(20), *branch] for branch in ([50, 51, 60], [70], [50, 51, 80], [90, 91])]
    random.Random(1).shuffle(prompts)
    scheduler.add(arrive(prompts[0], 8))
    step(scheduler)
    for prompt in prompts[1:]:
        scheduler.add(arrive(prompt, 8))
    for _ in range(3):
        step(scheduler)
    batch = build_batch(scheduler.plan())
    batch.check()
    shared = [read for read in batch.reads if not read.causal]
    assert sorted(read.length for read in shared) == [1, 1, 1, 2, 2, 20]
    assert [read.rows for read in shared if read.length == 20] == [[(0, 4)]]
    assert all(len(read.rows) == 1 for read in shared)
    run(scheduler)


def test_release_at_any_stage_gives_everything_back(arrive: Arrivals) -> None:
    for stage in range(5):
        scheduler = new_scheduler(chunk_tokens=16)
        sequence, other = arrive(range(40), 6), arrive([*range(20), 300], 6)
        scheduler.add(sequence)
        scheduler.add(other)
        for _ in range(stage):
            step(scheduler)
        scheduler.release(sequence)
        scheduler.release(sequence)
        scheduler.check()
        run(scheduler)
        scheduler.tree.clear()
        assert scheduler.pool.used == 0


def test_a_sequence_that_computes_its_prefix_itself_does_not_read_the_cached_one(arrive: Arrivals) -> None:
    scheduler, alone = new_scheduler(chunk_tokens=40), Use(Owner(), ((), 0), None, plan=False)
    scheduler.add(arrive([1, 1], 9))
    scheduler.add(arrive([1, 1, 5, *range(100, 170)], 4, use=alone))
    step(scheduler)
    scheduler.add(arrive([1, 1, 9, 9], 9, use=alone))
    scheduler.admit()
    batch = build_batch(scheduler.plan())
    batch.check()
    assert [read.rows for read in batch.reads if not read.causal] == [[(0, 1), (36, 38)]]
    run(scheduler)


def used(owner: Owner, *, keep: bool | None = True, branch: tuple[int, ...] = ()) -> Use:
    return Use(owner, (branch, 0), keep)


def test_what_a_run_goes_on_from_is_kept_until_it_does(arrive: Arrivals) -> None:
    scheduler, owner = new_scheduler(capacity=40), Owner()
    scheduler.add(arrive(range(10), 2, use=used(owner)))
    run(scheduler)
    assert scheduler.tree.num_marks == 1
    for number in range(6):
        scheduler.add(arrive(range(100 * number, 100 * number + 15), 2))
        run(scheduler)
    follower = arrive([*range(10), 7, 50], 2, use=used(owner, keep=False))
    scheduler.add(follower)
    run(scheduler)
    assert follower.cached == 11 and scheduler.tree.num_marks == 0
    owner.end()
    scheduler.uses.check()


def test_marks_go_with_their_run(arrive: Arrivals) -> None:
    scheduler, owner = new_scheduler(), Owner()
    scheduler.add(arrive(range(10), 2, use=used(owner)))
    scheduler.add(arrive(range(20, 30), 2, use=used(owner, branch=(0,))))
    late = arrive(range(40, 50), 2, use=used(owner, branch=(1,)))
    run(scheduler)
    assert scheduler.tree.num_marks == 2
    owner.end()
    assert scheduler.tree.num_marks == 0
    scheduler.add(late)
    run(scheduler)
    assert scheduler.tree.num_marks == 0
    scheduler.uses.check()


def test_a_run_that_has_begun_goes_before_a_new_one(arrive: Arrivals) -> None:
    scheduler, first, second = new_scheduler(max_running=1), Owner(), Owner()
    scheduler.add(arrive(range(10), 1, use=used(first)))
    run(scheduler)
    scheduler.add(arrive(range(20, 30), 1, use=used(second)))
    scheduler.add(arrive(range(40, 50), 1, use=used(first)))
    assert [next(iter(chunks)).tokens[0] for chunks in run(scheduler)] == [40, 20]


def test_a_new_run_waits_a_little_for_one_whose_kv_it_would_evict(arrive: Arrivals) -> None:
    scheduler, first, second = new_scheduler(capacity=30), Owner(), Owner()
    scheduler.seconds_per_token = 100.0
    scheduler.add(arrive(range(20), 2, use=used(first)))
    run(scheduler)
    scheduler.add(arrive(range(100, 120), 2, use=used(second, keep=False)))
    assert scheduler.admit() == [] and 0 < scheduler.holds_off_seconds <= 1
    follower = arrive([*range(20), 7, 50], 2, use=used(first, keep=False))
    scheduler.add(follower)
    assert scheduler.admit() == [follower] and follower.cached == 21
    run(scheduler)


def test_nobody_waits_for_a_run_that_does_not_come_back(arrive: Arrivals) -> None:
    scheduler, first, second = new_scheduler(capacity=30), Owner(), Owner()
    scheduler.add(arrive(range(20), 2, use=used(first)))
    run(scheduler)
    late = arrive(range(100, 120), 2, use=used(second, keep=False))
    scheduler.add(late)
    assert scheduler.admit() == [late]
    run(scheduler)


def test_a_request_that_is_refused_evicts_nothing(arrive: Arrivals) -> None:
    scheduler, first, second = new_scheduler(capacity=60), Owner(), Owner()
    scheduler.add(arrive(range(20), 2, use=used(first)))
    scheduler.add(arrive(range(100, 110), 1))
    run(scheduler)
    scheduler.add(arrive(range(200, 210), 9))
    step(scheduler)
    late = arrive(range(300, 330), 2, use=used(second, keep=False))
    scheduler.add(late)
    step(scheduler)
    assert late in scheduler.waiting and scheduler.tree.evicted_tokens == 0
    run(scheduler)


def test_what_waiting_requests_begin_with_is_evicted_late(arrive: Arrivals) -> None:
    scheduler, owners = new_scheduler(capacity=60, max_running=1), [Owner() for _ in range(3)]
    for start in (0, 100):
        scheduler.add(arrive(range(start, start + 20), 1))
        run(scheduler)
    scheduler.add(arrive(range(200, 210), 6, use=used(owners[0], keep=False)))
    step(scheduler)
    scheduler.add(arrive(range(300, 320), 1, use=used(owners[1], keep=False)))
    wants_the_older = arrive([*range(20), 50], 1, use=used(owners[2], keep=False))
    scheduler.add(wants_the_older)
    run(scheduler)
    assert wants_the_older.cached == 20


def planned(owner: Owner, *, keep: bool = True) -> Use:
    return Use(owner, ((), 0), keep, plan=True)


def test_runs_do_not_begin_that_would_grow_into_one_another(arrive: Arrivals) -> None:
    scheduler, owners = new_scheduler(capacity=100), [Owner(kind="talk") for _ in range(4)]

    def asks(number: int, length: int, **options: bool) -> Sequence:
        tokens = range(100 * number, 100 * number + length)
        sequence = arrive(tokens, 1, use=planned(owners[number], **options))
        scheduler.add(sequence)
        return sequence

    # Nothing is known about the first, so it begins alone; the second may when nothing runs.
    first, second = asks(0, 10), asks(1, 10)
    assert list(step(scheduler)) == [first]
    assert list(step(scheduler)) == [second]
    asks(0, 40, keep=False)
    run(scheduler)
    owners[0].end()
    owners[1].end()
    # Now it is known that such runs grow from 10 to 40 tokens, so two of them fit.
    third, fourth = asks(2, 10), asks(3, 10)
    assert set(step(scheduler)) == {third, fourth}
    run(scheduler)
    owners[2].end()
    owners[3].end()
    scheduler.uses.check()


def test_those_of_a_batch_hardly_age_by_one_another(arrive: Arrivals) -> None:
    batch = object()
    uses = [Use(Owner(batch=batch), ((), 0), False, plan=True) for _ in range(MAX_OVERTAKEN + 8)]
    scheduler = new_scheduler(max_running=1)
    scheduler.add(arrive(range(10), 1))
    run(scheduler)
    last = arrive([500], 1, use=uses[0])
    scheduler.add(last)
    for number, use in enumerate(uses[1:]):
        scheduler.add(arrive([*range(9), 600 + number], 1, use=use))
    assert next(iter(run(scheduler)[-1])) is last


@pytest.mark.parametrize("weight", [1, BATCH_WEIGHT])
def test_nobody_waits_longer_than_the_bound_for_a_stream_that_matches_better(arrive: Arrivals, weight: float) -> None:
    batch = object() if weight < 1 else None
    scheduler, most = new_scheduler(max_running=1, capacity=300), MAX_OVERTAKEN / weight
    scheduler.add(arrive(range(10), 1))
    run(scheduler)

    def add(tokens: Tokens[int]) -> Sequence:
        sequence = arrive(tokens, 1, use=Use(Owner(batch=batch), ((), 0), False, plan=True))
        scheduler.add(sequence)
        return sequence

    unlucky, started = [add([500 + number]) for number in range(3)], []
    for number in range(int(most) + 20):
        add([*range(9), 600 + number % 300])
        started += step(scheduler)
    passed = [started.index(sequence) for sequence in unlucky]
    assert most - 2 <= passed[0] <= most + 2 and passed == sorted(passed) and passed[2] <= most + 6


def since(admitted: list[Sequence], place: int, order: str) -> int:
    """From where on those count that were admitted before: where runs age, from the last one of its run."""
    owner = admitted[place].owner if order == "service" else None
    own = (at for at in range(place) if owner is not None and admitted[at].owner is owner)
    return max(own, default=-1) + 1


@pytest.mark.parametrize("order", ["prefix", "service"])
@pytest.mark.parametrize("seed", range(6))
def test_later_requests_pass_nobody_more_often_than_the_bound(
    arrive: Arrivals, monkeypatch: pytest.MonkeyPatch, seed: int, order: str
) -> None:
    """Any mixture of prefixes, sizes and runs, arriving faster than it is served."""
    draw, owners, admitted = random.Random(seed), [Owner() for _ in range(3)], []
    scheduler = new_scheduler(max_running=4, capacity=120, order=order)
    admit = scheduler.admit

    def recorded() -> list[Sequence]:
        started = admit()
        admitted.extend(started)
        return started

    monkeypatch.setattr(scheduler, "admit", recorded)
    for number in range(300):
        for _ in range(2):
            tokens = [draw.randrange(4)] * draw.randrange(1, 9)
            tokens += [100 + draw.randrange(99)] * draw.choice([1, 1, 1, 1, 30])
            use = Use(draw.choice(owners), ((number,), 0), None) if draw.random() < 0.5 else None
            scheduler.add(arrive(tokens, draw.randrange(1, 9), use=use))
        step(scheduler)
    passed = [
        sum(later.arrival > sequence.arrival for later in admitted[since(admitted, place, order) : place])
        for place, sequence in enumerate(admitted)
    ]
    assert max(passed) <= MAX_OVERTAKEN + 4 and len(admitted) > 100
    assert max(passed) > 8, "the order is another than that of arrival"


def completions(arrive: Arrivals, order: str, *, plan: bool = True) -> tuple[list[int], int]:
    """One run of 200 requests, and 40 runs of two that begin meanwhile: the steps that those took, and all together."""
    scheduler = new_scheduler(max_running=8, chunk_tokens=64, capacity=2_000, order=order)
    huge, last = Owner("huge"), {}
    for number in range(200):
        scheduler.add(arrive([1, 2, 3, 100 + number], 20, use=Use(huge, ((number,), 0), False, plan)))
    taken = []
    for now in range(3000):
        if now % 10 == 0 and now < 400:
            owner = Owner("short")
            sequence = arrive([500 + now, 7], 3, use=Use(owner, ((), 0), True, plan))
            last[sequence] = (owner, now, 1)
            scheduler.add(sequence)
        for sequence in step(scheduler):
            if sequence in last and sequence.node is None and sequence.num_generated == 3:
                owner, begun, count = last.pop(sequence)
                if count == 2:
                    owner.end()
                    taken.append(now - begun)
                    continue
                follower = arrive(
                    [*sequence.tokens[: sequence.num_tokens].tolist(), 9], 3, use=Use(owner, ((), 0), False, plan)
                )
                last[follower] = (owner, begun, 2)
                scheduler.add(follower)
        if not scheduler.has_work and now > 400:
            huge.end()
            scheduler.uses.check()
            return taken, now
    raise AssertionError("it does not come to an end")


def test_least_attained_service_lets_short_runs_pass_a_huge_one() -> None:
    fair, all_fair = completions(Arrivals(), "service")
    plain, all_plain = completions(Arrivals(), "prefix", plan=False)
    assert len(fair) == len(plain) == 40
    mean, plain_mean = sum(fair) / 40, sum(plain) / 40
    p95, plain_p95 = sorted(fair)[37], sorted(plain)[37]
    assert mean < plain_mean / 10 and p95 < plain_p95 / 10
    assert all_fair < all_plain * 1.05, "the huge one pays with little"


def test_service_is_seen_beyond_the_window(arrive: Arrivals) -> None:
    scheduler, huge = new_scheduler(max_running=1, order="service"), Owner()
    for number in range(ORDER_WINDOW + 50):
        scheduler.add(arrive([1, number], 1, use=used(huge, branch=(number,))))
    scheduler.uses.begin(used(huge))
    scheduler.uses.serve(huge, 10_000)
    late = arrive([5], 1, use=used(Owner()))
    scheduler.add(late)
    assert list(step(scheduler)) == [late]


def test_service_decides_whose_prompt_goes_on(arrive: Arrivals) -> None:
    scheduler, huge = new_scheduler(chunk_tokens=300, capacity=5_000, order="service"), Owner()
    large = arrive(range(900), 1, use=used(huge))
    scheduler.add(large)
    assert step(scheduler) == {large: 300}
    small = arrive(range(999, 799, -1), 1, use=used(Owner()))
    scheduler.add(small)
    assert step(scheduler) == {large: 100, small: 200}
    assert step(scheduler) == {large: 300}


def test_chunks_are_as_large_as_decoding_bears(arrive: Arrivals) -> None:
    scheduler = new_scheduler(chunk_tokens=512, capacity=5_000, step_seconds=0.25)

    def timed() -> int:
        """A step at 0.05 s and 0.002 s a token of a prompt; returns how many of these it had."""
        scheduler.admit()
        chunks = scheduler.plan()
        num_prefilled = sum(chunk.count for chunk in chunks if chunk.sequence.is_prefilling)
        scheduler.has_taken(chunks, scheduler.num_prefilled(chunks), 0.05 + 0.002 * num_prefilled)
        for chunk in chunks:
            scheduler.advance(chunk)
            if chunk.num_logits:
                chunk.sequence.append(7)
        return num_prefilled

    scheduler.add(arrive(range(5), 200))
    assert timed() == 5 and timed() == 0
    scheduler.add(arrive(range(100, 1000), 5))
    assert [timed() for _ in range(3)] == [32, 96, 96], "what prefill costs is guessed from the first step, then seen"


def test_a_run_does_not_evict_what_others_expect_while_it_goes_on_anyway(arrive: Arrivals) -> None:
    scheduler, first, second = new_scheduler(capacity=80), Owner(), Owner()
    scheduler.add(arrive(range(100, 110), 1, use=planned(first)))
    scheduler.add(arrive(range(200, 230), 2, use=planned(second)))
    run(scheduler)
    branches = [
        arrive(range(start, start + 20), 4, use=Use(first, ((start,), 0), False, plan=True)) for start in (300, 400)
    ]
    for branch in branches:
        scheduler.add(branch)
    run(scheduler)
    follower = arrive([*range(200, 230), 7, 50], 1, use=planned(second, keep=False))
    scheduler.add(follower)
    run(scheduler)
    assert follower.cached == 31, "the second branch has waited for the first"


def decode(scheduler: Scheduler) -> Batch:
    """The batch of a step in which all running sequences decode, and draw token 7."""
    chunks = scheduler.plan()
    assert all(chunk.count == 1 for chunk in chunks)
    batch = build_batch(chunks)
    batch.check()
    fresh = build_batch(list(chunks))
    assert list(batch.writes) == fresh.writes and list(batch.reads) == fresh.reads
    for name in ("token_ids", "positions", "logit_rows"):
        assert getattr(batch, name).tolist() == getattr(fresh, name).tolist()
    scheduler.advance_all(chunks)
    for chunk in chunks:
        chunk.sequence.append(7)
    return batch


@pytest.mark.parametrize("options", [{}, {"prefix_cache": False}, {"order": "service"}])
def test_while_all_decode_batches_go_on_from_one_another(arrive: Arrivals, options: dict[str, Any]) -> None:
    """The batch is what it would be if it were made anew, and is, once KV is split, moved or given back."""
    scheduler = new_scheduler(**options)
    stem = [1, 2, 3, 4]
    sequences = [arrive([*stem, 9, number], max_tokens=30) for number in range(3)]
    for sequence in sequences:
        scheduler.add(sequence)
    while (scheduler.has_work and not scheduler.running) or scheduler.is_prefilling:
        step(scheduler)
    first, second = decode(scheduler), decode(scheduler)
    assert first.series is second.series is not None and second.turn == first.turn + 1
    assert decode(scheduler).turn == first.turn + 2
    scheduler.tree.insert(None, np.array([1, 2, 50]), scheduler.pool.allocate(3))  # splits what all go on from
    split = decode(scheduler)
    assert (split.series is first.series) == (options == {"prefix_cache": False})
    scheduler.finish(sequences[1])
    other = decode(scheduler)
    assert other.series is not split.series and len(other.writes) == 2
    sequences[0].append(7)  # as a draft is accepted
    uneven = scheduler.plan()
    assert [chunk.count for chunk in uneven] == [2, 1]
    build_batch(uneven).check()
    scheduler.advance_all(uneven)
    for chunk in uneven:
        chunk.sequence.append(7)
    assert decode(scheduler).series is not other.series
    assert decode(scheduler).turn == 1
