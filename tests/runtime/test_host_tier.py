"""The tier in host memory: what goes there and in which order, what comes back, and that nothing else changes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule
from ramify.ir.errors import UsageError
from ramify.runtime import host_tier
from ramify.runtime.copies import CopyQueue, DirectCopies
from ramify.runtime.engine import Engine
from ramify.runtime.host_tier import HostTier
from ramify.runtime.pool import KVPool
from ramify.runtime.radix import Mark, Node, RadixTree, prefix_len
from ramify.runtime.scheduler import Scheduler
from ramify.runtime.uses import Owner

from .fakes import LAYOUT as TWO_NUMBERS
from .fakes import Call, call, expected_tokens, finish, new_engine
from .late_copies import NONSENSE, LateCopies
from .test_engine import EngineMachine
from .test_radix import LAYOUT, add, array, check_kv, filled, kv_of, prefixes_of, tokens_of
from .test_scheduler import Arrivals, run, step, used
from .test_scheduler import arrive as arrive


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """These prompts are short."""
    monkeypatch.setattr(host_tier, "LEAST_TOKENS", 1)


def two_tiers(capacity: int = 20, host: int = 100, queue: CopyQueue | None = None) -> tuple[RadixTree, HostTier]:
    tier = HostTier(LAYOUT, host, queue or DirectCopies())
    return RadixTree(KVPool(LAYOUT, capacity), tier), tier


def restored(tree: RadixTree, tier: HostTier, *tokens: int) -> Node | None:
    """Brings back what follows what the tree has of the tokens, and returns the node at its end."""
    node = tree.match(array(*tokens))
    tree.lock(node)
    restore = tier.find(array(*tokens), prefix_len(node), 0.0)
    if restore is not None:
        tree.evict(restore.count - tree.pool.free)
        extent = tree.pool.allocate(restore.count)
        tier.begin(restore, extent)
        assert restore.transfer is not None
        restore.transfer.join()
        tier.end(restore, is_used=True)
        tree.unlock(node)
        node = tree.insert(node, array(*tokens[restore.start : restore.start + restore.count]), extent)
        tree.lock(node)
    tree.unlock(node)
    return node


def check_both(tree: RadixTree, tier: HostTier) -> None:
    tree.check()
    tier.check(is_idle=True)
    check_kv(tree)
    check_kv(tier.tree)


def test_what_is_evicted_comes_back_with_its_kv() -> None:
    tree, tier = two_tiers()
    stem = add(tree, *range(8))
    add(tree, 20, 21, 22, below=stem)
    add(tree, 30, 31, below=stem)
    tree.evict(20)
    assert tree.num_tokens == 0 and tier.tree.num_tokens == 13 == tier.offloaded_tokens
    check_both(tree, tier)
    node = restored(tree, tier, *range(8), 30, 31, 99)
    assert tokens_of(node) == (*range(8), 30, 31) and tier.restored_tokens == 10
    assert tree.pool.used == 10 and tier.tree.num_tokens == 13, "it stays on the host too"
    check_both(tree, tier)
    tree.evict(20)
    assert tier.offloaded_tokens == 13, "what is there is not copied again"
    check_both(tree, tier)


def test_what_goes_together_is_copied_together() -> None:
    queue = LateCopies()
    tree, tier = two_tiers(queue=queue)
    stem = add(tree, 1, 2)
    for first in (3, 4, 5):
        add(tree, first, 6, below=stem)
    tree.evict(20)
    assert queue.num_begun == 1
    check_both(tree, tier)


def test_a_leaf_takes_its_beginning_along_and_half_of_a_node_comes_back() -> None:
    tree, tier = two_tiers()
    stem = add(tree, 1, 2, 3)
    tree.lock(stem)
    add(tree, 4, 5, 6, below=stem)
    tree.evict(20)
    assert tree.num_tokens == 3 and prefixes_of(tier.tree) == {tuple(range(1, n)) for n in range(2, 8)}
    node = restored(tree, tier, 1, 2, 3, 4, 5, 9)
    assert tokens_of(node) == (1, 2, 3, 4, 5) and tier.restored_tokens == 2 and tier.tree.num_nodes == 2
    tree.unlock(stem)
    check_both(tree, tier)


def test_what_nobody_is_going_to_use_is_dropped() -> None:
    tree, tier = two_tiers()
    stem = add(tree, 1, 2)
    for first, hint in ((10, "dead"), (20, "speculative")):
        extent = tree.pool.allocate(2)
        tree.insert(stem, array(first, first + 1), extent, **{hint: True})
    tree.evict(4)
    assert tree.evicted_tokens == 4 and tier.tree.num_tokens == 0
    tree.insert(None, array(7, 8), tree.pool.allocate(2), dead=True)
    tree.match(array(7, 8))
    tree.evict(20)
    assert prefixes_of(tier.tree) == {(1,), (1, 2), (7,), (7, 8)}, "but what somebody uses after all is kept"


def test_clearing_drops_what_is_on_the_device() -> None:
    tree, tier = two_tiers()
    add(tree, 1, 2)
    assert tree.clear() == 2 and tier.tree.num_tokens == 0


def test_the_host_evicts_in_the_same_order() -> None:
    tree, tier = two_tiers(host=8)
    for first in (1, 2, 3, 4, 5):
        add(tree, first, 10)
        if first == 2:
            mark = tree.mark(tree.match(array(2, 10)), (1.0,))  # type: ignore[arg-type]
    tree.evict(20)
    assert {prefix[0] for prefix in prefixes_of(tier.tree)} == {2, 3, 4, 5}, "the longest unused goes first"
    assert restored(tree, tier, 4, 10) is not None
    for first in (6, 7):
        add(tree, first, 10)
        tree.evict(20)
    assert {prefix[0] for prefix in prefixes_of(tier.tree)} == {2, 4, 6, 7}, "what is expected stays"
    assert mark.node is None and mark.below is not None and tier.tree.num_marks == 1
    tree.unmark(mark)
    assert tier.tree.num_marks == 0
    check_both(tree, tier)


def test_what_came_back_whole_goes_first() -> None:
    tree, tier = two_tiers(host=6)
    for first in (1, 2, 3):
        add(tree, first, 10)
    tree.evict(20)
    restored(tree, tier, 3, 10)
    restored(tree, tier, 1)
    add(tree, 4, 10)
    tree.match(array(1))
    tree.match(array(3, 10))
    tree.evict(2)
    assert {prefix[0] for prefix in prefixes_of(tier.tree)} == {1, 2, 4}, "not what came back in part"
    check_both(tree, tier)


def test_what_is_used_sooner_is_not_dropped_for_what_is_used_later() -> None:
    tree, tier = two_tiers(host=4)
    marks = [tree.mark(add(tree, first, 10, 11, 12), (float(order),)) for first, order in ((1, 2), (2, 1))]
    tree.evict(20)
    assert {prefix[0] for prefix in prefixes_of(tier.tree)} == {2}
    add(tree, 3, 10, 11, 12)
    tree.evict(20)
    assert {prefix[0] for prefix in prefixes_of(tier.tree)} == {2}
    for mark in marks:
        tree.unmark(mark)
    add(tree, 3, 10, 11, 12)
    tree.evict(20)
    assert {prefix[0] for prefix in prefixes_of(tier.tree)} == {3}
    check_both(tree, tier)


def test_a_path_longer_than_the_tier_is_dropped() -> None:
    tree, tier = two_tiers(host=5)
    add(tree, 4, 5, 6, below=add(tree, 1, 2, 3))
    add(tree, 9)
    tree.evict(20)
    assert prefixes_of(tier.tree) == {(9,), (1,), (1, 2), (1, 2, 3)}
    check_both(tree, tier)


def test_copying_has_to_be_cheaper_than_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, tier = two_tiers(capacity=40)
    add(tree, *range(30))
    tree.evict(40)
    tokens, seconds = array(*range(30)), LAYOUT.bytes_per_token * tier.copier.seconds_per_byte
    monkeypatch.setattr(host_tier, "LEAST_TOKENS", 16)
    assert tier.find(tokens, 15, 0.0) is None, "too short"
    assert tier.find(tokens, 0, seconds / 2) is None, "too slow"
    for start, speed in ((0, 0.0), (14, 2 * seconds)):
        found = tier.find(tokens, start, speed)
        assert found is not None and found.count == 30 - start and tier.tree.locked_tokens == 30
        tier.end(found, is_used=False)
    assert tier.restored_tokens == 0
    check_both(tree, tier)


def test_nothing_is_moved_while_it_is_still_on_its_way() -> None:
    queue = LateCopies()
    tree, tier = two_tiers(queue=queue, host=12)
    add(tree, *range(10))
    tree.match(array(*range(4)))
    tree.evict(10)
    assert queue.pending and tier.tree.num_tokens == 10
    tier.tree.match(array(*range(2)))
    tier.tree.lock(tier.tree.match(array(*range(3))))
    tier.tree.evict(9)
    assert not queue.pending, "what stays of a storage was moved only when it had come"
    check_kv(tier.tree)
    tier.tree.unlock(tier.tree.match(array(*range(3))))
    check_both(tree, tier)


def test_memory_the_machine_has_not_is_refused() -> None:
    with pytest.raises(UsageError, match=r"host_kv_tokens=1000000000000 takes [\d,]+ bytes, of which [\d,]+ are free"):
        HostTier(LAYOUT, 10**12, DirectCopies())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host_kv_tokens": -1}, "at least 0, got -1"),
        ({"host_kv_tokens": 5, "prefix_cache": False}, "there is none with prefix_cache=False"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        new_engine(**options)


class TierMachine(RuleBasedStateMachine):
    """Random use of two trees with copies that come late, against the prefixes that they should hold."""

    locks = Bundle("locks")
    marks = Bundle("marks")
    runs = st.lists(st.integers(0, 2), min_size=1, max_size=9)

    def __init__(self) -> None:
        super().__init__()
        self.queue = LateCopies()
        self.tree, self.tier = two_tiers(capacity=24, host=30, queue=self.queue)
        self.coming: list[tuple[Any, Any, list[int]]] = []

    @rule(run=runs, dead=st.booleans())
    def insert(self, run: list[int], dead: bool) -> None:
        node = self.tree.match(array(*run))
        self.tree.lock(node)
        rest = run[prefix_len(node) :]
        self.tree.evict(len(rest) - self.tree.pool.free)
        if rest and self.tree.pool.can_allocate(len(rest)):
            extent = filled(self.tree, array(*rest), prefix_len(node))
            self.tree.insert(node, array(*rest), extent, dead=dead)
        self.tree.unlock(node)

    @rule(target=locks, run=runs)
    def match_and_lock(self, run: list[int]) -> Node | None:
        node = self.tree.match(array(*run))
        self.tree.lock(node)
        return node

    @rule(node=consumes(locks))
    def unlock(self, node: Node | None) -> None:
        self.tree.unlock(node)

    @precondition(lambda self: self.tree.num_nodes)
    @rule(target=marks, which=st.integers(0, 99), order=st.integers(0, 3))
    def mark(self, which: int, order: int) -> Mark:
        nodes = list(self.tree.nodes())
        return self.tree.mark(nodes[which % len(nodes)], (float(order),))

    @rule(mark=consumes(marks))
    def unmark(self, mark: Mark) -> None:
        self.tree.unmark(mark)
        assert mark.below is None

    @rule(num_tokens=st.integers(1, 24))
    def evict(self, num_tokens: int) -> None:
        self.tree.evict(num_tokens)

    @rule(count=st.integers(1, 4))
    def copies_end(self, count: int) -> None:
        self.queue.carry_out(count)

    @rule(run=runs)
    def begin(self, run: list[int]) -> None:
        """What a scheduler does: room is taken first, then the copy begins."""
        present = self.tree.match_len(array(*run))
        on_host = self.tier.tree.match_len(array(*run))
        restore = self.tier.find(array(*run), present, 0.0)
        assert (restore is None) == (on_host <= present)
        if restore is None:
            return
        assert restore.count == on_host - present
        self.tree.evict(restore.count - self.tree.pool.free)
        if self.tree.pool.can_allocate(restore.count):
            extent = self.tree.pool.allocate(restore.count)
            self.tier.begin(restore, extent)
            self.coming.append((restore, extent, run[present:on_host]))
        else:
            self.tier.end(restore, is_used=False)

    @precondition(lambda self: self.coming)
    @rule(which=st.integers(0, 99), joins=st.booleans())
    def end(self, which: int, joins: bool) -> None:
        """It has come, or is given up on its way."""
        restore, extent, run = self.coming.pop(which % len(self.coming))
        if joins:
            restore.transfer.join()
        is_used = restore.transfer.is_done()
        if is_used:
            want = kv_of(array(*run), restore.start)
            assert torch.equal(extent.keys(0)[0, :, 0], want) and torch.equal(extent.values(0)[0, :, 0], -want)
        self.tier.end(restore, is_used=is_used)
        self.tree.pool.release(extent)

    @invariant()
    def holds(self) -> None:
        self.tree.check()
        self.tree.pool.check()
        self.tier.check(is_idle=False)
        check_kv(self.tree)
        coming = {id(step) for restore, _, _ in self.coming for step in restore.node.path()}
        assert self.tier.tree.locked_tokens == sum(
            len(node.tokens) for node in self.tier.tree.nodes() if id(node) in coming
        )

    def teardown(self) -> None:
        for restore, extent, _ in self.coming:
            self.tier.end(restore, is_used=False)
            self.tree.pool.release(extent)
        self.tier.check(is_idle=True)
        check_kv(self.tier.tree)


TierMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


class TestTierMachine(TierMachine.TestCase):  # type: ignore[misc, name-defined]
    pass


def tiered(capacity: int, host: int = 1000, queue: CopyQueue | None = None, **options: Any) -> Scheduler:
    chosen: dict[str, Any] = {
        "max_running": 8,
        "chunk_tokens": 64,
        "prefix_cache": True,
        "max_logit_rows": 4,
        **options,
    }
    tier = HostTier(TWO_NUMBERS, host, queue or DirectCopies())
    return Scheduler(KVPool(TWO_NUMBERS, capacity), host=tier, **chosen)


def host_of(scheduler: Scheduler) -> HostTier:
    assert scheduler.host is not None
    return scheduler.host


def offloaded(arrive: Arrivals, queue: LateCopies, capacity: int = 60) -> Scheduler:
    """A scheduler that has served range(30) and has it on the host alone."""
    scheduler = tiered(capacity, queue=queue)
    scheduler.add(arrive(range(30), 1))
    run(scheduler)
    scheduler.tree.evict(capacity)
    assert scheduler.tree.num_tokens == 0 and host_of(scheduler).tree.num_tokens == 30
    return scheduler


def test_what_comes_back_counts_as_cached_and_only_the_rest_is_computed(arrive: Arrivals) -> None:
    scheduler = offloaded(arrive, LateCopies())
    computed = scheduler.computed_tokens
    late = arrive([*range(30), 50, 51], 2)
    scheduler.add(late)
    assert step(scheduler) == {late: 2}, "with nothing else to do, it begins behind the copy"
    run(scheduler)
    assert late.cached == 30 == host_of(scheduler).restored_tokens == scheduler.hit_tokens
    assert scheduler.computed_tokens == computed + 3


def test_others_go_on_while_a_copy_is_under_way(arrive: Arrivals) -> None:
    queue = LateCopies()
    scheduler = offloaded(arrive, queue, capacity=100)
    busy, late, sharing = arrive([90], 9), arrive([*range(30), 50], 2), arrive([*range(20), 60], 2)
    scheduler.add(busy)
    step(scheduler)
    scheduler.add(late)
    scheduler.add(sharing)
    for _ in range(3):
        assert step(scheduler) == {busy: 1}, "one waits for its copy, one for what it shares with that"
    assert late in scheduler.running and sharing in scheduler.waiting and late.computed == 0
    queue.carry_out(9)
    assert step(scheduler) == {busy: 1, late: 1, sharing: 1}
    assert (late.cached, sharing.cached) == (30, 20) and host_of(scheduler).restored_tokens == 30
    run(scheduler)


@pytest.mark.parametrize("ends", ["before", "after"])
def test_a_request_may_be_cancelled_while_its_kv_comes(arrive: Arrivals, ends: str) -> None:
    queue = LateCopies()
    scheduler = offloaded(arrive, queue)
    busy, late = arrive([90], 9), arrive([*range(30), 50], 2)
    scheduler.add(busy)
    step(scheduler)
    scheduler.add(late)
    step(scheduler)
    assert late.restore is not None and host_of(scheduler).tree.locked_tokens == 30
    if ends == "before":
        queue.carry_out(9)
    scheduler.release(late)
    assert host_of(scheduler).tree.locked_tokens == 0 and host_of(scheduler).restored_tokens == 0
    again = arrive([*range(30), 51], 2)
    scheduler.add(again)
    step(scheduler)
    queue.carry_out(9)
    run(scheduler)
    assert again.cached == 30


def test_what_has_no_room_waits_and_leaves_no_lock(arrive: Arrivals) -> None:
    scheduler = offloaded(arrive, LateCopies(), capacity=60)
    busy, late = arrive([90], 40), arrive([*range(30), 50], 2)
    scheduler.add(busy)
    step(scheduler)
    scheduler.add(late)
    while busy in scheduler.running:
        assert late in scheduler.waiting and late.restore is None
        assert host_of(scheduler).tree.locked_tokens == 0
        step(scheduler)
    run(scheduler)
    assert late.cached == 30


def test_its_own_eviction_does_not_drop_what_a_request_wants_back(arrive: Arrivals) -> None:
    scheduler = tiered(40, host=31)
    for first in (0, 100):
        scheduler.add(arrive(range(first, first + 30), 1))
        run(scheduler)
    late = arrive([*range(30), 50], 2)
    scheduler.add(late)
    run(scheduler)
    assert late.cached == 30 and host_of(scheduler).tree.match_len(np.arange(100, 130)) == 0


def test_marks_reach_the_host_and_go_with_their_run(arrive: Arrivals) -> None:
    scheduler, owner = tiered(40), Owner()
    scheduler.add(arrive(range(10), 2, use=used(owner)))
    run(scheduler)
    for number in range(1, 4):
        scheduler.add(arrive(range(100 * number, 100 * number + 36), 2))
        run(scheduler)
    assert host_of(scheduler).tree.num_marks == 1
    follower = arrive([*range(10), 7, 50], 2, use=used(owner, keep=True))
    scheduler.add(follower)
    run(scheduler)
    assert follower.cached == 11 and host_of(scheduler).tree.num_marks == 0
    owner.end()
    scheduler.uses.check()
    assert scheduler.tree.num_marks == host_of(scheduler).tree.num_marks == 0


def test_check_notices_damage(arrive: Arrivals) -> None:
    scheduler = offloaded(arrive, LateCopies())
    tier = host_of(scheduler)
    scheduler.check()
    (node,) = tier.tree.nodes()
    tier.tree.lock(node)
    with pytest.raises(AssertionError, match="30 tokens are locked on the host"):
        scheduler.check()
    tier.tree.unlock(node)
    lost = tier.tree.pool.allocate(3)
    with pytest.raises(AssertionError, match="holds 30 tokens of the 33 in use"):
        scheduler.check()
    tier.tree.pool.release(lost)
    tier.tree.num_tokens += 1
    with pytest.raises(AssertionError, match="31 tokens are counted"):
        scheduler.check()


@contextmanager
def tiered_engine(queue: CopyQueue, **options: Any) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ramify.runtime.engine.copy_queue", lambda device: queue)
        yield new_engine(**options)


def workload(seed: int) -> list[list[Call]]:
    """Rounds of requests over a few stems, so that what one round leaves another one needs."""
    rng = random.Random(seed)
    stems = [_tokens(rng, 10, 40) for _ in range(6)]
    return [
        [
            call([*rng.choice(stems), *_tokens(rng, 1, 6)], max_tokens=rng.randint(1, 6))
            for _ in range(rng.randint(1, 4))
        ]
        for _ in range(12)
    ]


def _tokens(rng: random.Random, least: int, most: int) -> list[int]:
    return [rng.randrange(29) for _ in range(rng.randint(least, most))]


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_results_are_the_same_and_less_is_computed(seed: int, pipelined: bool) -> None:
    computed = {}
    for host_kv_tokens in (0, 1000):
        queue, rng, num_tokens = LateCopies(), random.Random(seed), 0
        options = {"kv_tokens": 100, "host_kv_tokens": host_kv_tokens, "pipelined": pipelined}
        with tiered_engine(queue, **options) as engine:
            for calls in workload(seed):
                for one in calls:
                    engine.submit(one.request)
                while engine.step():
                    queue.carry_out(rng.randint(0, 2))
                for one in calls:
                    assert one.done.token_ids == expected_tokens(one.request.token_ids, one.request.params.max_tokens)
                    num_tokens += one.done.prompt_tokens + one.done.generated_tokens - 1
        engine.check_idle()
        stats = engine.stats()
        assert stats.computed_tokens + stats.hit_tokens == num_tokens
        assert stats.restored_tokens > 0 if host_kv_tokens else stats.restored_tokens == stats.on_host == 0
        computed[host_kv_tokens] = stats.computed_tokens
    assert computed[1000] < 0.8 * computed[0]


class UnwaitedCopies(LateCopies):
    """Nobody can wait for them."""

    def carry_out_until(self, transfer: Any) -> None:
        pass


def test_what_is_read_before_it_has_come_would_be_noticed() -> None:
    """The fake model sees the nonsense that is there until a copy has ended."""
    with tiered_engine(UnwaitedCopies(), kv_tokens=40, host_kv_tokens=100, check=False) as engine:
        finish(engine, call(range(20), max_tokens=1))
        finish(engine, call([28] * 35, max_tokens=1))
        late = call([*range(20), 5], max_tokens=2)
        engine.submit(late.request)
        engine.step()
        assert f"reads [[{NONSENSE}" in str(late.error)


def test_clearing_the_cache_clears_both() -> None:
    engine = new_engine(kv_tokens=40, host_kv_tokens=100)
    finish(engine, call(range(20), max_tokens=1))
    finish(engine, call([28] * 35, max_tokens=1))
    assert engine.stats().on_host == 20
    engine.clear_cache()
    stats = engine.stats()
    assert (stats.cached, stats.used, stats.on_host) == (0, 0, 0)
    engine.check_idle()


def test_both_tiers_are_saved_and_loaded(tmp_path: Path) -> None:
    options = {"kv_tokens": 40, "host_kv_tokens": 200}
    prompts = [[first, *range(25)] for first in range(4)]
    with tiered_engine(LateCopies(), **options) as engine:
        for prompt in prompts:
            finish(engine, call(prompt, max_tokens=1))
        assert engine.save_cache(tmp_path / "kv") == 4 * 26
    with tiered_engine(LateCopies(), **options) as engine:
        assert engine.load_cache(tmp_path / "kv") == 4 * 26
        assert engine.stats().on_host == 4 * 26 and engine.stats().cached == 40
        for prompt in prompts:
            (done,) = finish(engine, call([*prompt, 5], max_tokens=3))
            assert done.cached_tokens == 26 and done.token_ids == expected_tokens([*prompt, 5], 3)
    with tiered_engine(LateCopies(), kv_tokens=1000) as engine:
        assert engine.load_cache(tmp_path / "kv") == 4 * 26 == engine.stats().cached


class TieredEngineMachine(EngineMachine):
    """The engine's random use with a tier whose copies come late."""

    pipelined = False

    def __init__(self) -> None:
        super().__init__()
        self.queue = LateCopies()
        options = {"kv_tokens": 40, "host_kv_tokens": 60, "max_running": 4, "chunk_tokens": 6}
        with tiered_engine(self.queue, **options, pipelined=self.pipelined) as engine:
            self.engine = engine

    @rule(count=st.integers(1, 4))
    def copies_end(self, count: int) -> None:
        self.queue.carry_out(count)


class PipelinedTieredEngineMachine(TieredEngineMachine):
    pipelined = True


TieredEngineMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
PipelinedTieredEngineMachine.TestCase.settings = TieredEngineMachine.TestCase.settings


class TestTieredEngineMachine(TieredEngineMachine.TestCase):  # type: ignore[misc, name-defined]
    pass


class TestPipelinedTieredEngineMachine(PipelinedTieredEngineMachine.TestCase):  # type: ignore[misc, name-defined]
    pass
