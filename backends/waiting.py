"""Requests that wait for their turn; those with a common beginning go together, so that a server's cache serves them.

Servers keep what they have computed of a prompt's beginning, or ask less for it, from about 1,024 tokens on. So a
request is known by the blocks of 4,096 bytes that its prompt begins with, and what waits is a tree of them. Turns go
through it depth first, in order of arrival. Where nobody has sent a beginning before, its first request goes alone: the
others wait until the server has begun to answer that, or their caller's patience is over (`Waiting.answered`), while
requests with other beginnings go on. Every 64th turn is the longest-waiting request's, so that nobody starves.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

T = TypeVar("T")
BLOCK = 4096
# Beginnings are told apart up to so many blocks; servers forget one after some minutes, and we after so many others.
_MOST_BLOCKS = 32
_CACHED_SECONDS = 300.0
_MOST_CACHED = 10_000
_AGED = 64


def blocks(beginning: bytes) -> tuple[int, ...]:
    """A key for each block that a prompt begins with, which tells it and all before it from others."""
    keys, key = [], 0
    for start in range(0, min(len(beginning) - BLOCK + 1, _MOST_BLOCKS * BLOCK), BLOCK):
        key = hash((key, beginning[start : start + BLOCK]))
        keys.append(key)
    return tuple(keys)


class _Node(Generic[T]):
    """What waits with one beginning: requests, and longer beginnings by their keys, in order of arrival."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: dict[int, tuple[T] | _Node[T]] = {}


class Waiting(Generic[T]):
    """The requests that wait. Not thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._root: _Node[T] = _Node()
        self._keys: dict[int, tuple[T, tuple[int, ...]]] = {}
        self._leads: dict[int, int] = {}
        self._led: dict[int, list[int]] = {}
        self._cached: OrderedDict[int, float] = OrderedDict()
        self._turn = 0
        self._clock = clock

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[T]:
        """What waits, in order of arrival."""
        return iter([item for item, _ in self._keys.values()])

    def add(self, item: T, keys: tuple[int, ...] = ()) -> None:
        """Let a request wait whose prompt begins with these blocks."""
        self._keys[id(item)] = item, keys
        node = self._root
        for key in keys:
            node = cast(_Node[T], node.items.setdefault(key, _Node()))
        node.items[id(item)] = (item,)

    def take(self) -> T | None:
        """The request whose turn it is; None where none waits, or all wait for the first with their beginning."""
        self._turn += 1
        found = self._oldest() if self._turn % _AGED == 0 else None
        if found is None:
            found = self._next(self._root)
        if found is None:
            return None
        item, keys = self._keys.pop(id(found))
        self._remove(item, keys)
        self._lead(item, keys)
        return item

    def answered(self, item: T) -> None:
        """The server has begun to answer a request, or may be taken to: those with its beginning may go now."""
        for key in self._led.pop(id(item), ()):
            del self._leads[key]
            self._cached[key] = self._clock() + _CACHED_SECONDS
        while len(self._cached) > _MOST_CACHED:
            self._cached.popitem(last=False)

    def failed(self, item: T) -> None:
        """A request ended without an answer: another is the first with its beginning now, if it was that."""
        for key in self._led.pop(id(item), ()):
            del self._leads[key]

    def _next(self, node: _Node[T]) -> T | None:
        for key, item in node.items.items():
            if isinstance(item, tuple):
                return item[0]
            if key not in self._leads and (found := self._next(item)) is not None:
                return found
        return None

    def _oldest(self) -> T | None:
        for item, keys in self._keys.values():
            if not any(key in self._leads for key in keys):
                return item
        return None

    def _remove(self, item: T, keys: tuple[int, ...]) -> None:
        path = [self._root]
        for key in keys:
            path.append(cast(_Node[T], path[-1].items[key]))
        del path[-1].items[id(item)]
        for parent, key, node in zip(reversed(path[:-1]), reversed(keys), reversed(path[1:]), strict=True):
            if not node.items:
                del parent.items[key]

    def _lead(self, item: T, keys: tuple[int, ...]) -> None:
        now = self._clock()
        new = [key for key in keys if key not in self._leads and self._cached.get(key, 0.0) <= now]
        for key in new:
            self._cached.pop(key, None)
            self._leads[key] = id(item)
        for key in keys:
            if key in self._cached:
                self._cached[key] = now + _CACHED_SECONDS
                self._cached.move_to_end(key)
        if new:
            self._led[id(item)] = new

    def is_leading(self, item: T) -> bool:
        """Whether others may wait for this request, which was taken, to be answered."""
        return id(item) in self._led
