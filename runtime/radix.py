"""The prefix tree over token ids: which KV is kept for reuse, who is using it, and what goes first when room is short.

Every node owns the KV of its tokens as one extent of the pool. A place in the tree is named by the node that ends there
(`None` for the empty prefix), and a node's path is the node and its ancestors. A split keeps the node itself as the
lower part, so a node that somebody holds goes on naming the same prefix whatever happens above it.

The idea is RadixAttention's (SGLang, arXiv 2312.07104, section 3); here a node holds a contiguous extent, not pages.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .pool import Extent, KVPool

TokenArray: TypeAlias = NDArray[np.int64]
# When something is used next: the smaller, the sooner.
Order: TypeAlias = tuple[float, ...]
_Key: TypeAlias = tuple[int, Order, int]
# The queue of eviction is made anew when it holds this many entries that count no more, and more than nodes.
_STALE_ENTRIES = 64


@dataclass(eq=False, slots=True)
class Mark:
    """Somebody is expected to use the prefix that ends at `node`; the smaller `order` is, the sooner.

    When the node is evicted, the mark goes to its parent, and with the last one of a path to None. below: the same
    expectation in the tier below, if the node went there.
    """

    order: Order
    node: Node | None
    below: Mark | None = None


@dataclass(eq=False, slots=True)
class Node:
    """A run of tokens below `parent`, at the positions [start, end) of every prompt that passes through it.

    locks: how many users hold this node or one below it; a locked node is not evicted. marks: who is expected to use
    it again. queued: the key of its entry in the tree's queue of leaves to evict; None if it has none. is_speculative:
    whether it was computed ahead and nobody has used it yet.
    """

    tokens: TokenArray
    extent: Extent
    parent: Node | None
    start: int
    children: dict[int, Node] = field(default_factory=dict)
    locks: int = 0
    last_used: int = 0
    marks: list[Mark] = field(default_factory=list)
    queued: _Key | None = None
    is_speculative: bool = False

    @property
    def end(self) -> int:
        """Length of the prefix that this node completes, in tokens."""
        return self.start + len(self.tokens)

    def path(self) -> Iterator[Node]:
        """This node and its ancestors, deepest first."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def prefix(self) -> TokenArray:
        """The tokens of the prefix that this node completes."""
        return np.concatenate([step.tokens for step in self.path()][::-1])


def prefix_len(node: Node | None) -> int:
    """Length in tokens of the prefix that ends at `node`."""
    return 0 if node is None else node.end


def common_len(first: TokenArray, second: TokenArray) -> int:
    """How many leading tokens two runs have in common."""
    length = min(len(first), len(second))
    if not length:
        return 0
    differs = first[:length] != second[:length]
    at = int(differs.argmax())
    return at if differs[at] else length


class TierBelow(Protocol):
    """Where KV may go that a tree evicts."""

    def take(self, node: Node, /) -> None:
        """A node is about to be evicted: keeps what it wants of its path, and the expectations of its marks."""

    def flush(self) -> None:
        """Enough has been evicted for now: begins to copy what it took, if it has not yet."""

    def unmark(self, mark: Mark, /) -> None:
        """Undoes what it noted for a mark (`Mark.below`)."""


class RadixTree:
    """Token runs and their KV, shared by common prefix. Not thread-safe: the engine's thread owns it.

    below: gets what is evicted, if it wants it.
    """

    def __init__(self, pool: KVPool, below: TierBelow | None = None) -> None:
        self.pool = pool
        self.below = below
        self.num_tokens = 0
        self.num_nodes = 0
        self.locked_tokens = 0
        self.evicted_tokens = 0
        self.speculative_tokens = 0
        self._roots: dict[int, Node] = {}
        self._clock = 0
        self.num_marks = 0
        # A heap with every evictable node in it, by a key that is at most the node's own; entries that are not the
        # node's newest (`queued`) count no more. The id keeps nodes from being compared, whatever the keys are.
        self._leaves: list[tuple[_Key, int, Node]] = []

    @property
    def evictable_tokens(self) -> int:
        """Tokens that nobody has locked."""
        return self.num_tokens - self.locked_tokens

    def match_len(self, tokens: TokenArray) -> int:
        """Length of the longest cached prefix of `tokens`. Changes nothing."""
        node, inside = self._descend(None, tokens)
        return prefix_len(node) + inside

    def last_used_by(self, tokens: TokenArray) -> Node | None:
        """The last node that a request for `tokens` would use, if only its beginning. Changes nothing."""
        node, inside = self._descend(None, tokens)
        return self._children(node)[int(tokens[prefix_len(node)])] if inside else node

    def continuation(self, node: Node | None, tokens: TokenArray, count: int) -> list[int] | None:
        """Up to `count` tokens that are cached after the run `tokens` below `node`; None if that is not cached itself.

        Where several follow, those used last. Changes nothing.
        """
        last, inside = self._descend(node, tokens)
        done = prefix_len(last) - prefix_len(node)
        if done + inside < len(tokens):
            return None
        found: list[int] = []
        if inside:
            last = self._children(last)[int(tokens[done])]
            found += last.tokens[inside : inside + count].tolist()
        while len(found) < count and (children := self._children(last)):
            last = max(children.values(), key=lambda child: child.last_used)
            found += last.tokens[: count - len(found)].tolist()
        return found

    def match(self, tokens: TokenArray) -> Node | None:
        """The node at which the longest cached prefix of `tokens` ends; splits a node when that is inside it."""
        return self.touch(self.cut(tokens))

    def cut(self, tokens: TokenArray) -> Node | None:
        """The same node as `match`, only that it does not count as used by that."""
        return self._match_below(None, tokens)

    def insert(
        self, node: Node | None, tokens: TokenArray, extent: Extent, *, dead: bool = False, speculative: bool = False
    ) -> Node:
        """Adds the run `tokens` with its KV below `node` and returns the node at its end. Takes the extent.

        What the tree already has of the run is kept, and its duplicate is given back to the pool. dead: nobody is going
        to use what is new, so that it goes first. speculative: nor may anybody, until somebody does (`use`).
        """
        assert 0 < len(tokens) == extent.room, f"{len(tokens)} tokens with KV for {extent.room}"
        parent = self._match_below(node, tokens)
        present = prefix_len(parent) - prefix_len(node)
        is_new = present < len(tokens)
        if present == len(tokens):
            self.pool.release(extent)
        else:
            parent = self._add(parent, tokens[present:].copy(), self._drop_front(extent, present))
        assert parent is not None
        self.touch(parent)
        if (dead or speculative) and is_new:
            parent.last_used = 0
        if speculative and is_new:
            parent.is_speculative = True
            self.speculative_tokens += len(parent.tokens)
        self._queue(parent)
        return parent

    def use(self, node: Node | None) -> int:
        """Notes that the prefix that ends at `node` is used; returns how many of its tokens were speculative."""
        used = 0
        for step in _path(node):
            if step.is_speculative:
                step.is_speculative = False
                step.last_used = self._clock
                used += len(step.tokens)
        self.speculative_tokens -= used
        return used

    def lock(self, node: Node | None) -> None:
        """Keeps the path of `node` from eviction until it is unlocked as often."""
        for step in _path(node):
            self.locked_tokens += len(step.tokens) if step.locks == 0 else 0
            step.locks += 1

    def unlock(self, node: Node | None) -> None:
        """Undoes one `lock`."""
        for step in _path(node):
            assert step.locks > 0, "a node is unlocked more often than it was locked"
            step.locks -= 1
            self.locked_tokens -= len(step.tokens) if step.locks == 0 else 0
            self._queue(step)

    def mark(self, node: Node, order: Order) -> Mark:
        """Notes that the prefix that ends at `node` is expected to be used: it is evicted after all that is not."""
        mark = Mark(order, node)
        node.marks.append(mark)
        self.num_marks += 1
        return mark

    def unmark(self, mark: Mark) -> None:
        """Undoes a `mark`."""
        node, mark.node = mark.node, None
        if node is not None:
            node.marks.remove(mark)
            self.num_marks -= 1
            self._queue(node)
        below, mark.below = mark.below, None
        if below is not None and self.below is not None:
            self.below.unmark(below)

    def touch(self, node: Node | None) -> Node | None:
        """Notes that the path of `node` is used now, which it is evicted by; returns the node."""
        self._clock += 1
        for step in _path(node):
            step.last_used = 0 if step.is_speculative else self._clock
        return node

    def demote(self, node: Node | None) -> None:
        """Has the path of `node` go first among what nobody is expected to use, until it is used again."""
        for step in _path(node):
            step.last_used = 0
            self._queue(step)

    def evict(self, num_tokens: int, *, spare: Order | None = None, whole: bool = False, drop: bool = False) -> int:
        """Evicts unlocked leaves until `num_tokens` more are free, or none is left; returns how many the pool gained.

        spare: leaves that are marked with a smaller order stay. whole: evicts nothing where that would not be enough.
        drop: the tier below, if there is one, does not get what goes. A leaf that shares its storage with a node that
        stays frees nothing by itself, so more may go than was asked; what is left of such storages is moved together
        where nothing else helps.
        """
        before = self.pool.free
        while (missing := before + num_tokens - self.pool.free) > 0:
            victims = self._victims(missing, spare)
            if whole and sum(len(node.tokens) for node in victims) + self.pool.wasted < missing:
                break
            for node in victims:
                if self.pool.free < before + num_tokens:
                    if self.below is not None and not drop:
                        self.below.take(node)
                    self._drop(node)
            if not victims:
                self.pool.compact(missing)
                break
        if self.below is not None:
            self.below.flush()
        return self.pool.free - before

    def _drop(self, node: Node) -> None:
        parent = node.parent
        self._remove(node)
        if parent is not None:
            self._queue(parent)

    def _victims(self, num_tokens: int, spare: Order | None) -> list[Node]:
        """What is to be dropped for so many tokens, in that order; as much as there is. Changes nothing."""
        victims: list[Node] = []
        bared = _Bared()
        while num_tokens > 0 and (node := self._next_victim(bared)) is not None:
            if spare is not None and (order := bared.order(node)) is not None and order < spare:
                self._queue(node)
                break
            victims.append(node)
            num_tokens -= len(node.tokens)
            bared.remove(node)
        for node in victims:
            self._queue(node)
        return victims

    def _next_victim(self, bared: _Bared) -> Node | None:
        """Take the least leaf out of the queue, or out of those that would be leaves by now."""
        node = self._least()
        if bared.leaves and (node is None or bared.leaves[0][0] < self._eviction_key(node)):
            return heapq.heappop(bared.leaves)[2]
        if node is not None:
            heapq.heappop(self._leaves)
            node.queued = None
        return node

    def clear(self) -> int:
        """Drops everything that is not locked; returns how many tokens the pool gained."""
        return self.evict(self.pool.capacity + 1, drop=True)

    def nodes(self) -> Iterator[Node]:
        """All nodes, parents before their children."""
        stack = list(self._roots.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def held_tokens(self) -> int:
        """Tokens of memory that the nodes' storages take, which may be more than the nodes have."""
        storages = [node.extent.data.untyped_storage() for node in self.nodes()]
        sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
        return sum(sizes.values()) // self.pool.layout.bytes_per_token

    def check(self) -> None:
        """Raises AssertionError when a node, a lock or a count is wrong, or two nodes share KV."""
        nodes = list(self.nodes())
        for first, node in self._roots.items():
            _check_child(None, first, node)
        for node in nodes:
            for first, child in node.children.items():
                _check_child(node, first, child)
        lengths = sum(len(node.tokens) for node in nodes)
        locked = sum(len(node.tokens) for node in nodes if node.locks)
        assert self.num_nodes == len(nodes), f"{self.num_nodes} nodes are counted, {len(nodes)} are in the tree"
        assert self.num_tokens == lengths, f"{self.num_tokens} tokens are counted, nodes hold {lengths}"
        speculative = sum(len(node.tokens) for node in nodes if node.is_speculative)
        assert self.speculative_tokens == speculative, (
            f"{self.speculative_tokens} speculative tokens, not {speculative}"
        )
        assert self.locked_tokens == locked, f"{self.locked_tokens} tokens are counted as locked, {locked} are"
        queued = {(id(node), key) for key, _, node in self._leaves}
        for node in nodes:
            assert all(mark.node is node for mark in node.marks), "a mark does not know its node"
            assert node.queued is None or (id(node), node.queued) in queued, "a node is not in the queue of eviction"
            if _is_evictable(node):
                assert node.queued is not None, "a leaf is not in the queue of eviction"
                assert node.queued <= self._eviction_key(node), "a leaf would be evicted too late"
        marks = sum(len(node.marks) for node in nodes)
        assert self.num_marks == marks, f"{self.num_marks} marks are counted, nodes have {marks}"
        assert len(self._leaves) <= 2 * (len(nodes) + _STALE_ENTRIES), "the queue of eviction grows"
        assert len({id(node.extent) for node in nodes}) == len(nodes), "two nodes own one extent"
        assert lengths <= self.pool.used, f"nodes hold {lengths} tokens, the pool only {self.pool.used}"
        self.pool.check()

    def _eviction_key(self, node: Node) -> _Key:
        """Decides who goes first, the leaf with the smallest key: first the least recently used of those that nobody is
        expected to use, then the one whose next use is the last.

        Leaves that were last used in the same step are told apart by depth, so that the order is total.
        """
        return _key(node, _order(node))

    def _queue(self, node: Node) -> None:
        """Puts a node that can be evicted into the queue, unless it is there with a key that is small enough."""
        if not _is_evictable(node):
            return
        key = self._eviction_key(node)
        if node.queued is None or key < node.queued:
            node.queued = key
            heapq.heappush(self._leaves, (key, id(node), node))
            if len(self._leaves) > 2 * self.num_nodes + _STALE_ENTRIES:
                self._leaves = [entry for entry in self._leaves if entry[0] == entry[2].queued]
                heapq.heapify(self._leaves)

    def _least(self) -> Node | None:
        """The evictable node with the smallest key, its entry at the head of the queue; None when there is none."""
        while self._leaves:
            key, _, node = self._leaves[0]
            if key == node.queued and _is_evictable(node) and key == self._eviction_key(node):
                return node
            heapq.heappop(self._leaves)
            if key == node.queued:
                node.queued = None
                self._queue(node)
        return None

    def _children(self, node: Node | None) -> dict[int, Node]:
        return self._roots if node is None else node.children

    def _descend(self, node: Node | None, tokens: TokenArray) -> tuple[Node | None, int]:
        """The last node below `node` that `tokens` passes through whole, and how far it goes into the next one."""
        at, end, children = 0, len(tokens), self._children(node)
        while at < end and (child := children.get(tokens.item(at))) is not None:
            length = len(child.tokens)
            shared = common_len(child.tokens, tokens[at : at + length])
            if shared < length:
                return node, shared
            node, at, children = child, at + length, child.children
        return node, 0

    def _match_below(self, node: Node | None, tokens: TokenArray) -> Node | None:
        start = prefix_len(node)
        node, inside = self._descend(node, tokens)
        if inside == 0:
            return node
        child = self._children(node)[int(tokens[prefix_len(node) - start])]
        return self._split(child, inside)

    def _split(self, node: Node, at: int) -> Node:
        """Puts the first `at` tokens of `node` into a new node above it, which is returned."""
        head, tail = self.pool.split(node.extent, at)
        siblings = self._children(node.parent)
        upper = Node(node.tokens[:at], head, node.parent, node.start, locks=node.locks, last_used=node.last_used)
        upper.is_speculative = node.is_speculative
        siblings[int(upper.tokens[0])] = upper
        node.tokens, node.extent, node.parent, node.start = node.tokens[at:], tail, upper, node.start + at
        upper.children[int(node.tokens[0])] = node
        self.num_nodes += 1
        return upper

    def _add(self, parent: Node | None, tokens: TokenArray, extent: Extent) -> Node:
        node = Node(tokens, extent, parent, prefix_len(parent))
        self._children(parent)[int(tokens[0])] = node
        self.num_nodes += 1
        self.num_tokens += len(tokens)
        return node

    def _remove(self, node: Node) -> None:
        del self._children(node.parent)[int(node.tokens[0])]
        node.queued = None
        for mark in node.marks:
            mark.node = node.parent
        if node.parent is None:
            self.num_marks -= len(node.marks)
        else:
            node.parent.marks += node.marks
        node.marks = []
        self.num_nodes -= 1
        self.num_tokens -= len(node.tokens)
        self.evicted_tokens += len(node.tokens)
        self.speculative_tokens -= len(node.tokens) if node.is_speculative else 0
        freed = self.pool.release(node.extent)
        if freed == 0 and node.parent is not None:
            # The parent may be the last view of a storage that was made for both.
            node.parent.extent = self.pool.trim(node.parent.extent, node.parent.extent.room)

    def _drop_front(self, extent: Extent, count: int) -> Extent:
        """Gives back the first `count` tokens of an extent."""
        if count == 0:
            return extent
        head, tail = self.pool.split(extent, count)
        self.pool.release(head)
        return self.pool.trim(tail, tail.room)


def _path(node: Node | None) -> Iterator[Node]:
    return iter(()) if node is None else node.path()


class _Bared:
    """What the tree would be without some of its leaves. leaves: a heap of those that would be leaves then."""

    def __init__(self) -> None:
        self.leaves: list[tuple[_Key, int, Node]] = []
        self._num_children: dict[int, int] = {}
        self._orders: dict[int, Order] = {}

    def order(self, node: Node) -> Order | None:
        """When a node is used next; what was expected below it goes on to it."""
        return _sooner(_order(node), self._orders.get(id(node)))

    def remove(self, node: Node) -> None:
        """Take a leaf away."""
        parent = node.parent
        if parent is None:
            return
        order = _sooner(self.order(node), self._orders.get(id(parent)))
        if order is not None:
            self._orders[id(parent)] = order
        self._num_children[id(parent)] = self._num_children.get(id(parent), len(parent.children)) - 1
        if not self._num_children[id(parent)] and not parent.locks:
            heapq.heappush(self.leaves, (_key(parent, self.order(parent)), id(parent), parent))


def _key(node: Node, order: Order | None) -> _Key:
    if order is None:
        return 0, (node.last_used,), -node.end
    return 1, tuple(-part for part in order), -node.end


def _order(node: Node) -> Order | None:
    """When a node is used next, if somebody is expected to use it."""
    return min(mark.order for mark in node.marks) if node.marks else None


def _sooner(first: Order | None, second: Order | None) -> Order | None:
    return min((order for order in (first, second) if order is not None), default=None)


def _is_evictable(node: Node) -> bool:
    return not node.children and node.locks == 0


def _check_child(parent: Node | None, first: int, child: Node) -> None:
    where = f"the node at [{child.start}, {child.end})"
    assert child.parent is parent, f"{where} does not know its parent"
    assert child.start == prefix_len(parent), f"{where} does not start where its parent ends"
    assert len(child.tokens) > 0 and int(child.tokens[0]) == first, f"{where} is filed under a token it lacks"
    assert child.extent.room == len(child.tokens), f"{where} has KV for {child.extent.room} tokens"
    below = sum(node.locks for node in child.children.values())
    assert child.locks >= below, f"{where} has {child.locks} locks and {below} below it"
