"""What an eviction that knows the future would have had to compute again (Belady), for what an engine has admitted.

The engine's admissions and ends are recorded in their order, with what each reserved. They are played again over a
cache of the same size that always drops what is used again last, token by token. It holds what runs, as the engine
must, so that the difference is that of eviction alone.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Admission:
    """A request was started. prompt: its tokens to compute; the first `matchable` may come from the cache.

    room: tokens reserved for what it generates. cached: how many came from the engine's cache.
    """

    key: int
    prompt: tuple[int, ...]
    matchable: int
    room: int
    cached: int

    @property
    def misses(self) -> int:
        """Tokens of the prompt that the engine computed."""
        return len(self.prompt) - self.cached


@dataclass(frozen=True)
class End:
    """A request has ended. tokens: the prompt and what of the generation has its KV."""

    key: int
    tokens: tuple[int, ...]


@contextmanager
def recorded(scheduler: Any) -> Iterator[list[Admission | End]]:
    """Collects what a scheduler admits and ends."""
    events: list[Admission | End] = []
    admit, release = scheduler._try_admit, scheduler.release

    def watch_admit(sequence: Any, **options: Any) -> bool:
        admitted: bool = admit(sequence, **options)
        if admitted:
            prompt = tuple(sequence.tokens[: sequence.target].tolist())
            first = Admission(id(sequence), prompt, sequence.first_logits, sequence.generated_room, sequence.cached)
            events.append(first)
        return admitted

    def watch_release(sequence: Any) -> None:
        if sequence in scheduler.running:
            events.append(End(id(sequence), tuple(sequence.tokens[: sequence.computed].tolist())))
        release(sequence)

    scheduler._try_admit, scheduler.release = watch_admit, watch_release
    try:
        yield events
    finally:
        del scheduler._try_admit, scheduler.release


def belady_misses(events: Sequence[Admission | End], capacity: int) -> int:
    """Prompt tokens that are computed when the cache of `capacity` tokens always drops what is used again last."""
    return _Replay(events, capacity).misses()


class _Replay:
    def __init__(self, events: Sequence[Admission | End], capacity: int) -> None:
        self._events = events
        self._capacity = capacity
        self._uses: dict[bytes, list[int]] = defaultdict(list)
        self._depths: dict[bytes, int] = {}
        self._locks: Counter[bytes] = Counter()
        self._running: dict[int, tuple[list[bytes], int]] = {}
        self._reserved = 0
        for at, event in enumerate(events):
            if isinstance(event, Admission):
                for digest in _prefixes(event.prompt)[: event.matchable]:
                    self._uses[digest].append(at)

    def misses(self) -> int:
        """Play it all."""
        total = 0
        for at, event in enumerate(self._events):
            if isinstance(event, Admission):
                total += self._admit(at, event)
            else:
                self._end(at, event)
        return total

    def _admit(self, at: int, event: Admission) -> int:
        prefixes = _prefixes(event.prompt)
        hits = next((n for n in range(event.matchable) if prefixes[n] not in self._depths), event.matchable)
        self._locks.update(prefixes)
        self._reserved += event.room
        self._depths |= {digest: depth for depth, digest in enumerate(prefixes)}
        self._running[event.key] = prefixes, event.room
        self._shrink(at)
        return len(prefixes) - hits

    def _end(self, at: int, event: End) -> None:
        prefixes, room = self._running.pop(event.key)
        self._reserved -= room
        self._locks.subtract(prefixes)
        self._locks += Counter()
        self._depths |= {digest: depth for depth, digest in enumerate(_prefixes(event.tokens))}
        self._shrink(at)

    def _shrink(self, at: int) -> None:
        over = len(self._depths) + self._reserved - self._capacity
        if over <= 0:
            return
        free = [digest for digest in self._depths if not self._locks[digest]]
        free.sort(key=lambda digest: (self._next_use(digest, at), self._depths[digest]), reverse=True)
        for digest in free[:over]:
            del self._depths[digest]

    def _next_use(self, digest: bytes, at: int) -> int:
        uses = self._uses.get(digest, ())
        place = bisect_right(uses, at)
        return uses[place] if place < len(uses) else len(self._events)


def _prefixes(tokens: Sequence[int]) -> list[bytes]:
    """A digest for each prefix."""
    digest = hashlib.blake2b(digest_size=12)
    prefixes = []
    for token in tokens:
        digest.update(token.to_bytes(4, "little"))
        prefixes.append(digest.digest())
    return prefixes
