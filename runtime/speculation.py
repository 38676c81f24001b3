"""Speculative prefill: the KV of text that may come next is computed while nothing real needs the engine.

A program's compiler tells which texts may follow (compiler/speculate.py). Most are taken back unused, so a text is
tokenized only when its turn has come. Then it is prefilled in small chunks, each a forward pass of its own, only while
no request waits or is prefilled, so that what a chunk costs others is known: all of its time while others decode, and
otherwise what a request had to wait that came meanwhile, unless it had to compute the same. A ledger bounds that: real
work earns `share` of its own time, and a chunk is begun only while enough is earned. Before anything is evicted for a
real request, what was computed goes into the tree, as the first to be evicted; nothing that is marked goes for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from .plan import Chunk
from .pool import KVPool, PoolExhausted
from .radix import RadixTree, TokenArray, common_len
from .sequence import Sequence

_log = logging.getLogger(__name__)
# A text of which less than this many tokens is missing is left to the request that needs it.
WORTH_TOKENS = 16
# The fewest tokens of a chunk, below which a step's fixed costs are most of it.
LEAST_CHUNK = 32
# What was computed ahead and was not used yet takes at most this part of the KV.
MOST_OF_KV = 1 / 8
# What one chunk may take, as a part of what a request takes, from its submission to its end.
CHUNK_SHARE = 0.02
# So long an idle engine waits before it begins a text: a program that goes on at once, or ends, has done so by then.
GRACE_SECONDS = 0.003
# How much of the newest measurement is in a mean.
_NEWEST = 0.2


@dataclass(eq=False, slots=True)
class Expected:
    """A prompt with which a request may come.

    encode: gives its token ids; called once at most, on the engine's thread, when there is time to compute them.
    is_brief: the request comes as soon as what runs now is done, so an idle engine has no time for it. told_at: when
    it was told of, in seconds of time.perf_counter. sequence: it as a sequence of the engine, once there was time.
    """

    encode: Callable[[], list[int]]
    is_brief: bool
    told_at: float
    sequence: Sequence | None = None


class Speculation:
    """The prompts to prefill ahead. Not thread-safe: the engine's thread owns it.

    share: how much real work may be delayed, in parts of the time that it takes. computed_tokens: so far.
    worked_seconds, delayed_seconds: how long real steps took so far, and how much later they were done for this. All
    times in seconds, told by the engine.
    """

    def __init__(self, tree: RadixTree, pool: KVPool, *, share: float, chunk_tokens: int) -> None:
        self.computed_tokens = 0
        self.worked_seconds = 0.0
        self.delayed_seconds = 0.0
        self._tree = tree
        self._pool = pool
        self._share = share
        self._most_chunk = chunk_tokens
        self._wanted: dict[Expected, None] = {}
        self._active: Expected | None = None
        self._earned = 0.0
        self._token_seconds = 0.0
        self._chunk_seconds = 0.0
        self._request_seconds = 0.0
        self._ended_at: float | None = None

    def add(self, expected: Expected) -> None:
        """Wants the KV of a prompt. They are taken in the order in which they were added."""
        self._wanted[expected] = None

    def cancel(self, expected: Expected) -> None:
        """Wants it no more; what was computed of it stays in the tree. Harmless for one that is done."""
        if expected in self._wanted:
            self._drop(expected)

    def clear(self) -> None:
        """Wants nothing any more."""
        self.pause()
        self._wanted.clear()

    def has_worked(self, seconds: float) -> None:
        """A real step has taken so long. What may be lost by it is saved up for no more than one chunk.

        Until one was measured, a chunk is thought to take as long as a step.
        """
        self._chunk_seconds = self._chunk_seconds or seconds
        self.worked_seconds += seconds
        self._earned = min(self._earned + self._share * seconds, max(self._chunk_seconds, self._earned))

    def has_arrived(self, tokens: TokenArray, submitted_at: float) -> None:
        """A request for these tokens was submitted: makes way for it, and accounts for what it had to wait.

        It waited for nothing if it would have had to compute the same.
        """
        active, ended_at = None if self._active is None else self._active.sequence, self._ended_at
        self.pause()
        self._ended_at = None
        is_own = active is not None and common_len(tokens, active.tokens) >= active.computed
        if ended_at is not None and not is_own:
            self._delays(max(0.0, ended_at - submitted_at))

    def has_served(self, seconds: float) -> None:
        """A request took so long from its submission to its end."""
        self._request_seconds = _mean(self._request_seconds, seconds)

    def seconds_to_wait(self, now: float) -> float:
        """How long an idle engine should wait for requests before the next chunk."""
        if self._active is not None or self._earned < 0:
            return 0.0
        first = next((each for each in self._wanted if _has_time(each, is_idle=True)), None)
        return 0.0 if first is None else first.told_at + GRACE_SECONDS - now

    def next_chunk(self, new_sequence: Callable[[list[int]], Sequence], *, is_idle: bool) -> Chunk | None:
        """What to compute ahead now, or None; then it holds no KV. is_idle: whether nothing real is running.

        new_sequence: makes one of the engine of token ids. What raises here or in `encode` is not computed.
        """
        if self._active is not None and not _has_time(self._active, is_idle):
            self.pause()
        while self._can_afford(is_idle) and (expected := self._active or self._begin_next(new_sequence, is_idle)):
            sequence = expected.sequence
            assert sequence is not None
            count = min(self._chunk_tokens(), sequence.target - sequence.computed)
            if count:
                return Chunk(sequence, count, 0)
            self._drop(expected)
        self.pause()
        return None

    def advance(self, chunk: Chunk, *, ended_at: float, seconds: float, is_idle: bool) -> None:
        """A chunk was computed, in so many seconds."""
        chunk.sequence.computed += chunk.count
        self.computed_tokens += chunk.count
        self._chunk_seconds = _mean(self._chunk_seconds, seconds)
        self._token_seconds = _mean(self._token_seconds, seconds / chunk.count)
        self._ended_at = ended_at if is_idle else None
        if not is_idle:
            self._delays(seconds)

    def pause(self) -> None:
        """Puts what was computed of the current text into the tree and holds no KV any more."""
        sequence = None if self._active is None else self._active.sequence
        self._active = None
        if sequence is None:
            return
        extent, sequence.prompt_extent = sequence.prompt_extent, None
        count = sequence.computed - sequence.tail_start
        if extent is not None and count == 0:
            self._pool.release(extent)
        elif extent is not None:
            tokens = sequence.tokens[sequence.tail_start : sequence.computed]
            self._tree.insert(sequence.node, tokens, self._pool.trim(extent, count), speculative=True)
        self._tree.unlock(sequence.node)
        sequence.node = None

    def _delays(self, seconds: float) -> None:
        """Real work is done so much later."""
        self._earned -= seconds
        self.delayed_seconds += seconds

    def _can_afford(self, is_idle: bool) -> bool:
        """Idle, a chunk most likely costs nobody anything; else it costs others all of its time, once that is known."""
        return self._earned >= 0 if is_idle else 0 < self._chunk_seconds <= self._earned

    def _chunk_tokens(self) -> int:
        seconds = CHUNK_SHARE * self._request_seconds
        fitting = int(seconds / self._token_seconds) if self._token_seconds else 0
        return min(max(fitting, LEAST_CHUNK), self._most_chunk)

    def _begin_next(self, new_sequence: Callable[[list[int]], Sequence], is_idle: bool) -> Expected | None:
        """Takes KV for the next prompt that is worth it and for which there is room."""
        for expected in list(self._wanted):
            if not _has_time(expected, is_idle):
                continue
            try:
                sequence = expected.sequence = expected.sequence or new_sequence(expected.encode())
            except Exception as error:  # of what nobody has asked for, nobody hears
                _log.debug("a text is not prefilled ahead: %s", error)
            else:
                if self._try_begin(sequence):
                    self._active = expected
                    return expected
            self._drop(expected)
        return None

    def _drop(self, expected: Expected) -> None:
        """Wants it no more."""
        if expected is self._active:
            self.pause()
        del self._wanted[expected]

    def _try_begin(self, sequence: Sequence) -> bool:
        missing = sequence.target - self._tree.match_len(sequence.tokens)
        most = int(self._pool.capacity * MOST_OF_KV) - self._tree.speculative_tokens
        if missing < WORTH_TOKENS or missing > most:
            return False
        node = self._tree.match(sequence.tokens)
        self._tree.lock(node)
        if missing > self._pool.free:
            self._tree.evict(missing - self._pool.free, spare=_ALL_MARKED)
        if missing > self._pool.free:
            self._tree.unlock(node)
            return False
        try:
            extent = self._pool.allocate(missing)
        except PoolExhausted:  # what is on the device may be less than the pool may have
            self._tree.unlock(node)
            return False
        sequence.node, sequence.prompt_extent = node, extent
        sequence.computed = sequence.tail_start
        return True


# Every mark's order is smaller.
_ALL_MARKED = (inf,)


def _has_time(expected: Expected, is_idle: bool) -> bool:
    return not (is_idle and expected.is_brief)


def _mean(mean: float, value: float) -> float:
    return value if mean == 0 else mean + _NEWEST * (value - mean)
