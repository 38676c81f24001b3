"""Speculative prefill: what is computed ahead, when, what it makes room for, and that no result changes."""

from __future__ import annotations

import random
import time
from functools import partial

import numpy as np
import pytest
from ramify.runtime.engine import Engine
from ramify.runtime.output import Output
from ramify.runtime.pool import KVPool
from ramify.runtime.radix import RadixTree
from ramify.runtime.request import EngineRequest, SamplingParams
from ramify.runtime.sequence import Sequence, token_array
from ramify.runtime.speculation import GRACE_SECONDS, LEAST_CHUNK, Expected, Speculation
from ramify.runtime.uses import Owner, Use

from .fakes import LAYOUT, FakeModel, ToyStream, call, expected_tokens, finish, new_engine

QUESTION = [3, 1, 4, 1, 5, 9, 2, 6]
# A share so large that time decides nothing.
AT_ONCE = 1e9


def text(length: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(29) for _ in range(length)]


def prefill(engine: Engine, *texts: list[int], is_brief: bool = False) -> list[Expected]:
    expected = [Expected(partial(list, tokens), is_brief, time.perf_counter()) for tokens in texts]
    for each in expected:
        engine.prefill(each)
    return expected


def begin(engine: Engine) -> None:
    """Until the first chunk was computed."""
    before = engine.stats().speculated_tokens
    while engine.stats().speculated_tokens == before:
        assert engine.step()


def work_off(engine: Engine, limit: int = 500) -> None:
    for _ in range(limit):
        if not engine.step():
            return
    raise AssertionError("the engine does not come to an end")


def test_an_idle_engine_computes_what_may_come_next() -> None:
    engine, branch = new_engine(), QUESTION + text(50)
    finish(engine, call(QUESTION, max_tokens=1))
    computed = engine.stats().computed_tokens
    prefill(engine, branch)
    work_off(engine)
    stats = engine.stats()
    assert (stats.speculated_tokens, stats.speculation_hits, stats.computed_tokens) == (50, 0, computed)
    (done,) = finish(engine, call([*branch, 7], max_tokens=4))
    assert done.token_ids == expected_tokens([*branch, 7], 4)
    assert done.cached_tokens == 58 and engine.stats().speculation_hits == 50
    engine.check_idle()


def test_both_branches_are_computed_while_a_choice_is_made() -> None:
    engine = new_engine(speculation_share=AT_ONCE, chunk_tokens=64)
    yes, no = QUESTION + text(50, 1), QUESTION + text(60, 2)
    deciding = call(QUESTION, max_tokens=40)
    engine.submit(deciding.request)
    engine.step()
    prefill(engine, yes, no, is_brief=True)
    while engine.stats().speculated_tokens < 110:
        assert engine.step() and not deciding.ended
    (done,) = finish(engine, call(no, max_tokens=3))
    assert done.cached_tokens == len(no) - 1 and done.token_ids == expected_tokens(no, 3)
    assert deciding.done.token_ids == expected_tokens(QUESTION, 40)
    assert engine.stats().speculation_hits == 59


def test_when_the_choice_is_made_the_branch_is_about_to_come() -> None:
    engine = new_engine(speculation_share=AT_ONCE)
    prefill(engine, text(50, 1), is_brief=True)
    prefill(engine, text(60, 2))
    work_off(engine)
    assert engine.stats().speculated_tokens == 60
    deciding = call(QUESTION, max_tokens=2)
    engine.submit(deciding.request)
    engine.step()
    assert engine.stats().speculated_tokens == 60 + LEAST_CHUNK
    work_off(engine)
    assert engine.stats().speculated_tokens == 60 + LEAST_CHUNK, "the request is done"
    engine.check_idle()


def test_nothing_is_computed_while_a_request_waits_or_is_prefilled() -> None:
    engine = new_engine(speculation_share=AT_ONCE, chunk_tokens=16, max_running=1)
    prefill(engine, text(100, 1))
    first, second = call(text(60, 2), max_tokens=3), call(text(40, 3), max_tokens=3)
    engine.submit(first.request)
    engine.submit(second.request)
    while not second.events:
        engine.step()
        if not second.events:
            assert engine.stats().speculated_tokens == 0
    finish(engine)
    assert engine.stats().speculated_tokens == 100


def test_a_request_that_arrives_goes_first_and_uses_what_is_there() -> None:
    engine, branch = new_engine(), text(100)
    prefill(engine, branch)
    begin(engine)
    computed = engine.stats().speculated_tokens
    assert 0 < computed == LEAST_CHUNK
    (done,) = finish(engine, call(branch, max_tokens=2))
    assert done.cached_tokens == computed and done.token_ids == expected_tokens(branch, 2)
    assert engine.stats().speculated_tokens == computed, "the rest was the request's"


def test_what_is_cancelled_is_computed_no_further() -> None:
    engine = new_engine()
    first, second = prefill(engine, text(100, 1), text(100, 2))
    begin(engine)
    engine.cancel_prefill(first)
    engine.cancel_prefill(second)
    work_off(engine)
    assert engine.stats().speculated_tokens == LEAST_CHUNK
    engine.cancel_prefill(first)
    work_off(engine)
    engine.check_idle()


def test_the_text_that_is_shared_is_computed_once() -> None:
    engine, branch = new_engine(), text(80)
    prefill(engine, branch, branch, [*branch, 1, 2], branch[:50])
    work_off(engine)
    assert engine.stats().speculated_tokens == 80, "two more tokens are not worth a step"


def test_it_takes_little_of_the_memory_and_nothing_that_is_expected_to_be_used() -> None:
    engine, owner = new_engine(kv_tokens=200), Owner()
    kept = call(text(150, 1), max_tokens=2)
    kept.request.use = Use(owner, ((), 0), True)
    finish(engine, kept)
    prefill(engine, text(40, 2), text(24, 3), text(24, 4))
    work_off(engine)
    assert engine.stats().speculated_tokens == 24, "an eighth of 200 tokens"
    (done,) = finish(engine, call(text(150, 1), max_tokens=1))
    assert done.cached_tokens == 149
    filling = call(text(20, 5), max_tokens=1)
    filling.request.use = Use(owner, ((0,), 0), True)
    finish(engine, filling)
    assert engine.stats().evicted_tokens == 0
    larger = new_engine(kv_tokens=170)
    kept = call(text(150, 1), max_tokens=2)
    kept.request.use = Use(owner, ((), 0), True)
    finish(larger, kept)
    prefill(larger, text(20, 6))
    work_off(larger)
    assert larger.stats().speculated_tokens == 0, "19 tokens are free, and the others are marked"
    owner.end()
    work_off(larger)
    prefill(larger, text(20, 6))
    work_off(larger)
    assert larger.stats().speculated_tokens == 20


def test_what_nobody_has_used_yet_is_evicted_first() -> None:
    engine = new_engine(kv_tokens=200)
    finish(engine, call(text(100, 1), max_tokens=1))
    prefill(engine, text(25, 2))
    work_off(engine)
    finish(engine, call(text(90, 3), max_tokens=1))
    (done,) = finish(engine, call(text(100, 1), max_tokens=1))
    assert done.cached_tokens == 99
    assert engine.stats().speculation_hits == 0


def test_a_request_gets_the_memory_of_a_text_that_is_being_computed() -> None:
    engine = new_engine(kv_tokens=320)
    finish(engine, call(text(150, 9), max_tokens=1))
    prefill(engine, text(40, 1))
    begin(engine)
    assert engine.stats().used == 190
    (done,) = finish(engine, call(text(150, 2), max_tokens=50))
    assert done.generated_tokens == 50 and engine.stats().evicted_tokens >= 150 + LEAST_CHUNK
    engine.check_idle()


@pytest.mark.parametrize("seed", range(4))
def test_no_result_changes(seed: int) -> None:
    rng = random.Random(seed)
    engine = new_engine(kv_tokens=rng.choice([150, 300, 1000]), speculation_share=rng.choice([AT_ONCE, 0.02, 0.0]))
    stem = text(20, seed)
    calls = []
    wanted: list[Expected] = []
    for _ in range(30):
        tokens = stem[: rng.randint(1, 20)] + text(rng.randint(0, 50), rng.randrange(5))
        if rng.random() < 0.6:
            wanted += prefill(engine, tokens)
        if rng.random() < 0.6:
            one = call(tokens[: rng.randint(1, len(tokens))], max_tokens=rng.randint(1, 6))
            calls.append(one)
            engine.submit(one.request)
        if wanted and rng.random() < 0.3:
            engine.cancel_prefill(rng.choice(wanted))
        for _step in range(rng.randint(0, 4)):
            engine.step()
    finish(engine)
    for one in calls:
        assert one.done.token_ids == expected_tokens(one.request.token_ids, one.request.params.max_tokens)
    engine.check_idle()


def test_what_cannot_be_computed_or_kept_is_left_undone() -> None:
    uncached = new_engine(prefix_cache=False)
    prefill(uncached, text(50))
    assert not uncached.step() and uncached.stats().speculated_tokens == 0
    model = FakeModel()
    engine = new_engine(model)
    prefill(engine, text(500), [1000])
    work_off(engine)
    assert engine.stats().speculated_tokens == 0
    model.fail_on = lambda batch: len(batch.logit_rows) == 0
    prefill(engine, text(50))
    work_off(engine)
    (done,) = finish(engine, call(QUESTION, max_tokens=2))
    assert done.token_ids == expected_tokens(QUESTION, 2)
    engine.check_idle()
    engine.close()


# The ledger, with times that are told.


def new_speculation(share: float = 0.02) -> Speculation:
    pool = KVPool(LAYOUT, 100_000)
    return Speculation(RadixTree(pool), pool, share=share, chunk_tokens=512)


def wanted(tokens: list[int], *, is_brief: bool = False, told_at: float = 0.0) -> Expected:
    return Expected(partial(list, tokens), is_brief, told_at)


def new_sequence(tokens: list[int]) -> Sequence:
    request = EngineRequest(tokens, SamplingParams(max_tokens=0), lambda event: None)
    array = token_array(request, vocab_size=1000, context_length=10_000)
    return Sequence(request, array, Output(ToyStream, ()), 0, (), 0, 0.0)


def computes(speculation: Speculation, *, is_idle: bool, now: float = 0.0, seconds: float = 0.003) -> int:
    chunk = speculation.next_chunk(new_sequence, is_idle=is_idle)
    if chunk is None:
        return 0
    speculation.advance(chunk, ended_at=now, seconds=seconds, is_idle=is_idle)
    return chunk.count


def test_while_others_decode_it_takes_its_share_of_the_time() -> None:
    speculation = new_speculation()
    speculation.add(wanted(text(2000)))
    taken = 0.0
    for _ in range(2000):
        speculation.has_worked(0.002)
        taken += 0.003 * bool(computes(speculation, is_idle=False))
        assert taken <= 0.02 * speculation.worked_seconds + 0.003
    assert speculation.delayed_seconds == pytest.approx(taken)
    assert taken == pytest.approx(0.02 * 4, rel=0.1)


def test_delays_of_requests_are_paid_for_by_real_work() -> None:
    speculation = new_speculation()
    speculation.add(wanted(text(2000)))
    assert computes(speculation, is_idle=True, now=10.0)
    speculation.has_arrived(np.arange(9), 9.998)
    assert not computes(speculation, is_idle=True), "2 ms are owed"
    for _ in range(9):
        speculation.has_worked(0.01)
        assert not computes(speculation, is_idle=True)
    speculation.has_worked(0.011)
    assert computes(speculation, is_idle=True, now=20.0)
    speculation.has_arrived(np.arange(9), 20.1)
    assert computes(speculation, is_idle=True, now=30.0), "that one had not to wait"
    speculation.has_arrived(np.array(text(2000)), 29.9)
    assert computes(speculation, is_idle=True), "that one would have computed the same"


def test_an_idle_engine_waits_whether_the_program_goes_on_by_itself() -> None:
    speculation = new_speculation()
    speculation.add(wanted(text(50), is_brief=True, told_at=5.0))
    assert speculation.seconds_to_wait(5.0) == 0, "that one is not for idle engines"
    speculation.add(wanted(text(100), told_at=5.0))
    assert speculation.seconds_to_wait(5.001) == pytest.approx(GRACE_SECONDS - 0.001)
    assert speculation.seconds_to_wait(5.1) < 0


def test_a_chunk_is_small_beside_a_request() -> None:
    speculation = new_speculation()
    speculation.add(wanted(text(5000)))
    assert computes(speculation, is_idle=True, seconds=0.0032) == LEAST_CHUNK
    for _ in range(50):
        speculation.has_served(0.5)
    assert computes(speculation, is_idle=True, seconds=0.01) == 100


def test_without_a_share_it_never_works_beside_others() -> None:
    engine = new_engine(speculation_share=0.0)
    deciding = call(QUESTION, max_tokens=30)
    engine.submit(deciding.request)
    prefill(engine, text(50))
    while not deciding.ended:
        engine.step()
        assert deciding.ended or engine.stats().speculated_tokens == 0
    work_off(engine)


def test_what_there_is_no_time_for_is_not_even_tokenized() -> None:
    engine, encoded = new_engine(speculation_share=0.0), []
    deciding = call(QUESTION, max_tokens=10)
    engine.submit(deciding.request)
    texts = [Expected(lambda seed=seed: encoded.append(seed) or text(50, seed), False, 0.0) for seed in range(3)]
    for each in texts:
        engine.prefill(each)
    while not deciding.ended:
        engine.step()
        assert deciding.ended or not encoded
    engine.cancel_prefill(texts[1])
    work_off(engine)
    assert encoded == [0, 2]


def test_what_cannot_be_tokenized_is_left_out(caplog) -> None:
    engine = new_engine()
    broken = Expected(lambda: [][0], False, 0.0)
    engine.prefill(broken)
    prefill(engine, text(50))
    work_off(engine)
    assert engine.stats().speculated_tokens == 50 and not caplog.records
    engine.cancel_prefill(broken)
    work_off(engine)
    engine.check_idle()
