"""The prefix tree against a set of prefixes: what is cached, that KV stays with its tokens, locks, eviction order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule
from ramify.runtime.pool import Extent, KVLayout, KVPool
from ramify.runtime.radix import Mark, Node, RadixTree, common_len, prefix_len

LAYOUT = KVLayout(1, 1, 1, torch.float32, torch.device("cpu"))


def array(*tokens: int) -> np.ndarray:
    return np.array(tokens, dtype=np.int64)


def new_tree(capacity: int = 100) -> RadixTree:
    return RadixTree(KVPool(LAYOUT, capacity))


def kv_of(tokens: np.ndarray, start: int) -> torch.Tensor:
    """What the tests store as the keys of `tokens` at `start`; the values are their negatives."""
    return torch.tensor([1000.0 * (start + i) + int(token) for i, token in enumerate(tokens)])


def filled(tree: RadixTree, tokens: np.ndarray, start: int) -> Extent:
    extent = tree.pool.allocate(len(tokens))
    extent.keys(0)[0, :, 0] = kv_of(tokens, start)
    extent.values(0)[0, :, 0] = -kv_of(tokens, start)
    return extent


def add(tree: RadixTree, *tokens: int, below: Node | None = None) -> Node:
    run = array(*tokens)
    return tree.insert(below, run, filled(tree, run, prefix_len(below)))


def check_kv(tree: RadixTree) -> None:
    for node in tree.nodes():
        want = kv_of(node.tokens, node.start)
        assert torch.equal(node.extent.keys(0)[0, :, 0], want)
        assert torch.equal(node.extent.values(0)[0, :, 0], -want)


def tokens_of(node: Node | None) -> tuple[int, ...]:
    path = [] if node is None else list(node.path())[::-1]
    return tuple(int(token) for step in path for token in step.tokens)


def prefixes_of(tree: RadixTree) -> set[tuple[int, ...]]:
    whole = [tokens_of(node) for node in tree.nodes()]
    return {run[:length] for run in whole for length in range(1, len(run) + 1)}


@pytest.mark.parametrize(
    ("first", "second", "want"),
    [((), (), 0), ((1,), (), 0), ((1, 2), (1, 2, 3), 2), ((1, 2, 3), (1, 5, 3), 1), ((4,), (5,), 0), ((7,), (7,), 1)],
)
def test_common_len(first: tuple[int, ...], second: tuple[int, ...], want: int) -> None:
    assert common_len(array(*first), array(*second)) == want
    assert common_len(array(*second), array(*first)) == want


def test_match_ends_at_a_node_and_splits_where_it_must() -> None:
    tree = new_tree()
    deep = add(tree, 1, 2, 3, 4)
    assert tree.match(array(9)) is None
    assert tree.match_len(array(1, 2, 9)) == 2 and tree.num_nodes == 1
    upper = tree.match(array(1, 2, 9))
    assert upper is not None and tokens_of(upper) == (1, 2) and tree.num_nodes == 2
    assert tree.match(array(1, 2, 3, 4, 5)) is deep and tokens_of(deep) == (1, 2, 3, 4)
    tree.check()
    check_kv(tree)


def test_insert_keeps_what_is_there_and_gives_duplicates_back() -> None:
    tree = new_tree()
    first = add(tree, 1, 2, 3, 4)
    kept = first.extent
    assert add(tree, 1, 2, 3, 4) is first and first.extent is kept and tree.pool.used == 4
    fork = add(tree, 1, 2, 7, 8, 9)
    assert tokens_of(fork) == (1, 2, 7, 8, 9) and tree.num_tokens == 7 == tree.pool.used
    below = add(tree, 3, 4, 5, below=fork.parent)
    assert tokens_of(below) == (1, 2, 3, 4, 5) and tree.pool.used == 8
    assert tokens_of(add(tree, 1, 2, 3)) == (1, 2, 3)
    tree.check()
    check_kv(tree)


def test_eviction_takes_the_least_recently_used_leaf_first_and_no_more_than_needed() -> None:
    tree = new_tree()
    for first in (1, 2, 3):
        add(tree, first, 10, 11)
    tree.match(array(1, 10, 11))
    assert tree.evict(2) == 3
    assert prefixes_of(tree) == {(1,), (1, 10), (1, 10, 11), (3,), (3, 10), (3, 10, 11)}
    assert tree.evicted_tokens == 3
    assert tree.clear() == 6 and tree.num_nodes == 0 and tree.pool.used == 0
    tree.check()


def test_eviction_looks_at_few_nodes_of_a_large_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = new_tree(4000)
    leaves = [add(tree, first, 1) for first in range(2000)]
    for leaf in (*leaves[:5], leaves[0]):
        tree.lock(leaf)
        tree.match(array(int(leaf.tokens[0]), 1))
        tree.unlock(leaf)
    tree.check()
    looked_at: list[Node] = []
    eviction_key = tree._eviction_key
    monkeypatch.setattr(tree, "_eviction_key", lambda node: (looked_at.append(node), eviction_key(node))[1])
    assert tree.evict(4) == 4 and not {5, 6} & {tokens[0] for tokens in prefixes_of(tree)}
    assert len(looked_at) < 20
    assert {0, 1, 2, 3, 4, 7} <= {tokens[0] for tokens in prefixes_of(tree)}
    tree.check()


def test_a_lock_keeps_the_whole_path() -> None:
    tree = new_tree()
    leaf = add(tree, 1, 2, 3)
    add(tree, 1, 2, 7)
    tree.lock(leaf)
    tree.lock(leaf)
    tree.clear()
    assert prefixes_of(tree) == {(1,), (1, 2), (1, 2, 3)}
    tree.unlock(leaf)
    assert tree.locked_tokens == 3 and tree.clear() == 0
    tree.unlock(leaf)
    assert tree.evictable_tokens == 3 and tree.clear() == 3
    with pytest.raises(AssertionError, match="unlocked more often"):
        tree.unlock(leaf)


def test_a_split_inherits_locks() -> None:
    tree = new_tree()
    leaf = add(tree, 1, 2, 3)
    tree.lock(leaf)
    upper = tree.match(array(1, 5))
    assert upper is not None and upper.locks == 1
    tree.unlock(leaf)
    assert upper.locks == 0 and tree.locked_tokens == 0


def test_memory_comes_back_when_a_split_neighbour_is_evicted() -> None:
    tree = new_tree()
    add(tree, *range(50))
    upper = tree.match(array(*range(5)))
    tree.lock(upper)
    assert tree.evict(1) == 45
    assert tree.pool.used == 5
    tree.check()
    check_kv(tree)


def test_what_is_expected_goes_last_and_the_latest_use_first() -> None:
    tree = new_tree()
    nodes = [add(tree, first, 10) for first in range(5)]
    later, sooner = tree.mark(nodes[0], (2.0,)), tree.mark(nodes[1], (1.0,))
    add(tree, 9, 10, below=add(tree, 8))
    tree.insert(None, array(7, 7), filled(tree, array(7, 7), 0), dead=True)
    assert tree.evict(1) == 2 and (7,) not in prefixes_of(tree)
    assert tree.evict(9, spare=(0.5,)) == 9
    assert {tokens[0] for tokens in prefixes_of(tree)} == {0, 1}
    assert tree.evict(1, spare=(1.5,)) == 2 and {tokens[0] for tokens in prefixes_of(tree)} == {1}
    assert tree.evict(1, spare=(1.5,)) == 0
    assert later.node is None and tree.num_marks == 1
    tree.unmark(sooner)
    tree.unmark(later)
    assert tree.num_marks == 0 and tree.evict(1, spare=(1.5,)) == 2
    tree.check()


def test_a_mark_moves_up_when_its_node_is_evicted() -> None:
    tree = new_tree()
    upper = add(tree, 1, 2)
    mark = tree.mark(add(tree, 3, 4, below=upper), (1.0,))
    add(tree, 5, 6)
    assert tree.evict(3) == 4 and mark.node is upper
    tree.check()


def test_nothing_goes_where_all_that_may_go_is_not_enough() -> None:
    tree = new_tree()
    add(tree, 3, 4, below=add(tree, 1, 2))
    tree.mark(add(tree, 5, 6), (0.0,))
    assert tree.evict(5, spare=(1.0,), whole=True) == 0 and tree.num_tokens == 6
    assert tree.evict(4, spare=(1.0,), whole=True) == 4 and prefixes_of(tree) == {(5,), (5, 6)}


def test_the_queue_of_eviction_stays_small() -> None:
    tree = new_tree()
    node = add(tree, 1, 2)
    for _ in range(1000):
        tree.unmark(tree.mark(node, (1.0,)))
        tree.match(array(1, 2))
    tree.check()


def test_check_notices_damage() -> None:
    tree = new_tree()
    node = add(tree, 1, 2, 3)
    node.locks = 1
    with pytest.raises(AssertionError, match="locked"):
        tree.check()
    node.locks, node.start = 0, 1
    with pytest.raises(AssertionError, match="start where its parent ends"):
        tree.check()


def test_a_continuation_is_what_is_cached_after_a_run() -> None:
    tree = new_tree()
    stem = add(tree, 1, 2, 3)
    add(tree, 4, 5, 6, below=stem)
    assert tree.continuation(None, array(1, 2), 9) == [3, 4, 5, 6]
    assert tree.continuation(None, array(1, 2), 3) == [3, 4, 5]
    assert tree.continuation(stem, array(4), 9) == [5, 6]
    assert tree.continuation(stem, array(4, 5, 6), 9) == []
    assert tree.continuation(stem, array(4, 5, 6, 7), 9) is None
    assert tree.continuation(stem, array(9), 9) is None
    add(tree, 7, 8, below=stem)
    assert tree.continuation(stem, array(), 9) == [7, 8], "of several, those used last"
    tree.match(array(1, 2, 3, 4, 5, 6))
    assert tree.continuation(None, array(1), 9) == [2, 3, 4, 5, 6]
    assert new_tree().continuation(None, array(1), 9) is None


class RadixMachine(RuleBasedStateMachine):
    """Random use of the tree, against the set of prefixes that it should hold."""

    locks = Bundle("locks")
    marks = Bundle("marks")
    runs = st.lists(st.integers(0, 2), min_size=1, max_size=7)

    def __init__(self) -> None:
        super().__init__()
        self.tree = new_tree(capacity=40)
        self.cached: set[tuple[int, ...]] = set()
        self.held: list[tuple[int, ...]] = []

    def longest(self, run: list[int]) -> int:
        return max((n for n in range(1, len(run) + 1) if tuple(run[:n]) in self.cached), default=0)

    @rule(run=runs, speculative=st.booleans())
    def insert(self, run: list[int], speculative: bool) -> None:
        if self.tree.pool.can_allocate(len(run)):
            tokens, before = array(*run), self.tree.speculative_tokens
            node = self.tree.insert(None, tokens, filled(self.tree, tokens, 0), speculative=speculative)
            assert tokens_of(node) == tuple(run)
            is_new = len(run) - self.longest(run) if speculative else 0
            assert self.tree.speculative_tokens == before + is_new
            self.cached |= {tuple(run[:n]) for n in range(1, len(run) + 1)}

    @rule(run=runs)
    def look_up(self, run: list[int]) -> None:
        before = self.tree.num_nodes
        assert self.tree.match_len(array(*run)) == self.longest(run)
        assert self.tree.num_nodes == before

    @rule(run=runs, count=st.integers(1, 5))
    def go_on(self, run: list[int], count: int) -> None:
        found = self.tree.continuation(None, array(*run), count)
        if found is None:
            assert tuple(run) not in self.cached
            return
        whole = (*run, *found)
        assert whole in self.cached and len(found) <= count
        assert len(found) == count or all(whole != longer[: len(whole)] or whole == longer for longer in self.cached)

    @rule(target=locks, run=runs)
    def match_and_lock(self, run: list[int]) -> tuple[Node | None, tuple[int, ...]]:
        node = self.tree.match(array(*run))
        want = tuple(run[: self.longest(run)])
        assert tokens_of(node) == want
        self.tree.lock(node)
        self.tree.use(node)
        assert self.tree.use(node) == 0
        self.held.append(want)
        return node, want

    @rule(lock=locks, run=runs)
    def insert_below(self, lock: tuple[Node | None, tuple[int, ...]], run: list[int]) -> None:
        node, prefix = lock
        if self.tree.pool.can_allocate(len(run)):
            assert tokens_of(add(self.tree, *run, below=node)) == (*prefix, *run)
            self.cached |= {(*prefix, *run[:n]) for n in range(1, len(run) + 1)}

    @rule(lock=consumes(locks))
    def unlock(self, lock: tuple[Node | None, tuple[int, ...]]) -> None:
        node, prefix = lock
        assert tokens_of(node) == prefix
        self.tree.unlock(node)
        self.held.remove(prefix)

    @precondition(lambda self: self.tree.num_nodes)
    @rule(target=marks, which=st.integers(0, 99), order=st.integers(0, 3))
    def mark(self, which: int, order: int) -> Mark:
        nodes = list(self.tree.nodes())
        return self.tree.mark(nodes[which % len(nodes)], (float(order),))

    @rule(mark=consumes(marks))
    def unmark(self, mark: Mark) -> None:
        before = self.tree.num_marks - (mark.node is not None)
        self.tree.unmark(mark)
        assert self.tree.num_marks == before

    @precondition(lambda self: self.cached)
    @rule(num_tokens=st.integers(1, 12), order=st.integers(0, 3))
    def evict_sparing(self, num_tokens: int, order: int) -> None:
        spared = {tokens_of(n) for n in self.tree.nodes() if any(mark.order < (float(order),) for mark in n.marks)}
        self.tree.evict(num_tokens, spare=(float(order),))
        self.cached = prefixes_of(self.tree)
        assert spared <= self.cached

    @precondition(lambda self: self.cached)
    @rule(num_tokens=st.integers(1, 12), order=st.integers(0, 3))
    def evict_wholly(self, num_tokens: int, order: int) -> None:
        gained = self.tree.evict(num_tokens, spare=(float(order),), whole=True)
        assert gained >= num_tokens or prefixes_of(self.tree) == self.cached
        self.cached = prefixes_of(self.tree)

    @precondition(lambda self: self.cached)
    @rule(num_tokens=st.integers(1, 12))
    def evict(self, num_tokens: int) -> None:
        free = self.tree.pool.free
        gained = self.tree.evict(num_tokens)
        assert gained == self.tree.pool.free - free
        left = prefixes_of(self.tree)
        assert left <= self.cached
        assert gained >= num_tokens or self.tree.evictable_tokens == 0
        self.cached = left

    @invariant()
    def holds(self) -> None:
        self.tree.check()
        check_kv(self.tree)
        assert prefixes_of(self.tree) == self.cached
        wanted = {prefix[:n] for prefix in self.held for n in range(1, len(prefix) + 1)}
        assert wanted <= self.cached
        assert self.tree.locked_tokens == len(wanted)


RadixMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRadixMachine = RadixMachine.TestCase
