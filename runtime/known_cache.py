"""What is known of a cache that is elsewhere: the prefix tree itself, over a pool that only counts.

Nothing here imports torch, so that a router needs none. Eviction is the least recently used first, as in an engine that
expects nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from .radix import Node, RadixTree, TokenArray, prefix_len

if TYPE_CHECKING:
    from .pool import Extent, KVPool


@dataclass(eq=False, slots=True)
class _Counted:
    """An extent without memory."""

    room: int


class _CountedPool:
    """What a prefix tree asks of a pool, in tokens alone; every extent is free as soon as it is given back."""

    wasted = 0

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0

    @property
    def free(self) -> int:
        return self.capacity - self.used

    def allocate(self, room: int) -> _Counted:
        assert 0 < room <= self.free, f"{room} tokens of {self.free}"
        self.used += room
        return _Counted(room)

    def split(self, extent: _Counted, at: int) -> tuple[_Counted, _Counted]:
        return _Counted(at), _Counted(extent.room - at)

    def trim(self, extent: _Counted, length: int) -> _Counted:
        self.used -= extent.room - length
        return _Counted(length)

    def release(self, extent: _Counted) -> int:
        self.used -= extent.room
        return extent.room

    def compact(self, num_tokens: int) -> int:
        return 0

    def check(self) -> None:
        assert 0 <= self.used <= self.capacity, f"{self.used} tokens are used of {self.capacity}"


class KnownCache:
    """The prefixes that a cache of `kv_tokens` tokens is thought to hold. Not thread-safe.

    Tokens are given as int64 arrays (length,).
    """

    def __init__(self, kv_tokens: int) -> None:
        self.kv_tokens = kv_tokens
        self._pool = _CountedPool(kv_tokens)
        self._tree = RadixTree(cast("KVPool", self._pool))

    @property
    def num_tokens(self) -> int:
        """Tokens that are held."""
        return self._tree.num_tokens

    @property
    def free(self) -> int:
        """Tokens that can be added without evicting any."""
        return self._pool.free

    def match_len(self, tokens: TokenArray) -> int:
        """Length of the longest prefix that is held. Changes nothing."""
        return self._tree.match_len(tokens)

    def add(self, tokens: TokenArray) -> Node | None:
        """Hold these tokens, or as much of their beginning as there is room for, from now on the last used; the node
        where that ends.
        """
        node = self._tree.match(tokens)
        known = prefix_len(node)
        self._tree.lock(node)
        if known < len(tokens) and self.free < len(tokens) - known:
            self._tree.evict(len(tokens) - known - self.free)
        self._tree.unlock(node)
        count = min(len(tokens) - known, self.free)
        if not count:
            return node
        return self._tree.insert(node, tokens[known : known + count], cast("Extent", self._pool.allocate(count)))

    def hold(self, tokens: TokenArray, room: int = 0) -> Node | None:
        """Hold all of these tokens until `release`, and keep `room` more tokens free for now; the node where they end.

        None, and nothing is held, where what is held already leaves too little room.
        """
        missing = len(tokens) - self.match_len(tokens) + room
        locked = self._tree.locked_tokens
        if missing > self.kv_tokens - locked:
            return None
        node = self.add(tokens)
        if prefix_len(node) < len(tokens):
            return None
        self._tree.lock(node)
        if self.free < room:
            self._tree.evict(room - self.free)
        if self.free < room:  # others hold what the matched prefix takes
            self._tree.unlock(node)
            return None
        return node

    def release(self, node: Node) -> None:
        """Undo one `hold`: the tokens stay until room is short."""
        self._tree.unlock(node)

    def check(self) -> None:
        """Raises AssertionError when a count is wrong."""
        self._tree.check()
        assert self._tree.num_tokens == self._pool.used, f"{self._tree.num_tokens} tokens, {self._pool.used} counted"
