"""Decides who runs: admission by worst case, prefix-aware order, and what each step computes.

A request is admitted when the pool has room for all that it may ever need, so nothing that runs is ever stopped for
memory. What waits is planned as one prefix tree: runs that have begun go on before others begin, in their order, and of
new ones those with the longest cached prefix come first. A request that shares more of its prompt with one that is
being prefilled than is cached waits until that part is there, so that N equal prompts cost one prefill. What waiting
requests begin with is evicted late, and a run does not begin when it would grow into the KV of those under way.

One that was overtaken MAX_OVERTAKEN times (those of its own batch count for BATCH_WEIGHT) goes before all others, and
nobody passes it. Requests that are not to be planned (`Use.plan`) come in the order of their arrival, and wait for no
other's prefill.

With the order "service" programs share the engine fairly: first come requests of runs for which little was computed so
far, in classes of powers of two, and only within a class the order above counts. That is least attained service, as
Autellix (arXiv 2502.13965) has it for programs; here what runs is never stopped, so it is about admission and prefill.
It is runs then that are overtaken, and one of whose requests goes before all others.

With a tier in host memory (runtime/host_tier.py), a sequence whose prompt goes on there has that part copied back into
the KV that it has taken for it. Meanwhile it is being prefilled like any other, only that nothing of it is computed, so
that others wait for what they share with it, and go on from it when it is there.

A step computes the last token of each decoding sequence (more where its constraint forced several) and spends the rest
of its token budget on prompts (chunked prefill mixed with decode, after Sarathi-Serve, arXiv 2403.02310), as far as
that does not make it too long for those that decode (runtime/pace.py).
"""

from __future__ import annotations

import time
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from heapq import nsmallest
from itertools import islice
from math import inf
from typing import Literal

from ..ir.errors import RequestError
from .host_tier import HostTier
from .pace import Pace
from .plan import Chunk, Round
from .pool import DeviceFull, KVPool, PoolExhausted
from .radix import Mark, Order, RadixTree, common_len
from .sequence import Sequence
from .uses import Expectations

MAX_OVERTAKEN = 64
# In one batch it is nobody's loss who comes first, but a batch may be endless.
BATCH_WEIGHT = 1 / 16
# Only so many of the longest waiting are compared for their order, which bounds a step's work.
ORDER_WINDOW = 256
# While nothing runs, a request that would evict what others are about to use is held back for so long at most.
MOST_PATIENCE_SECONDS = 1.0
# Runs with fewer tokens computed than this are of the first class of service; each further one is twice as wide.
FIRST_CLASS_TOKENS = 256
# What prefill takes is seen in steps of at least so many tokens.
_TIMED_TOKENS = 32
AdmissionOrder = Literal["prefix", "service"]
_ALL_MARKED: Order = (inf,)


class Scheduler:
    """Holds the waiting and the running sequences and their KV. Not thread-safe: the engine's thread owns it.

    discarded_tokens: that were computed for nothing, see `take_back`.
    refused: sequences for whose KV the device has no memory though nothing else needs any; who calls `admit` ends them.
    speculation_hits: tokens of prompts that were computed ahead of their request (runtime/speculation.py).
    seconds_per_token: what prefill takes, as the engine has measured it. holds_off_seconds: how long the last `admit`
    would have the engine wait for requests that are about to come.

    host: gets what is evicted. max_logit_rows: the most rows of logits that scoring asks for in one step, which bounds
    their memory. order: whose requests come first. step_seconds: see Pace. later: has a command carried out on that
    thread.
    """

    def __init__(
        self,
        pool: KVPool,
        *,
        max_running: int,
        chunk_tokens: int,
        prefix_cache: bool,
        max_logit_rows: int,
        order: AdmissionOrder = "prefix",
        step_seconds: float | None = None,
        host: HostTier | None = None,
        later: Callable[[Callable[[], None]], object] = lambda command: command(),
    ) -> None:
        self.pool = pool
        self.host = host
        self.tree = RadixTree(pool, host)
        self.uses = Expectations(self.tree, lambda command: later(partial(self._change, command)))
        self.running: list[Sequence] = []
        self.waiting: dict[Sequence, None] = {}
        self.refused: list[Sequence] = []
        self.hit_tokens = 0
        self.prompt_tokens = 0
        self.speculation_hits = 0
        self.computed_tokens = 0
        self.discarded_tokens = 0
        self.seconds_per_token = 0.0
        self.holds_off_seconds = 0.0
        self._prefilling: dict[Sequence, None] = {}
        self._restoring: dict[Sequence, None] = {}  # in the order in which their copies were begun
        self._wanted: list[Mark] | None = None
        self._round: Round | None = None
        self._max_running = max_running
        self._chunk_tokens = chunk_tokens
        self._max_logit_rows = max_logit_rows
        self._prefix_cache = prefix_cache
        self._shares_service = order == "service"
        self._pace = Pace(step_seconds)
        self._changed = False
        self._refused_tokens = 0
        self._is_device_full = False
        self._held_off_since: float | None = None

    @property
    def has_work(self) -> bool:
        """Whether any sequence waits or runs."""
        return bool(self.running or self.waiting)

    @property
    def is_prefilling(self) -> bool:
        """Whether a request waits for its prompt to be computed."""
        return bool(self.waiting or self._prefilling)

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence. Raises RequestError when it could not even run alone."""
        needed = sequence.target + sequence.generated_room
        if needed > self.pool.capacity:
            raise RequestError(
                f"the request needs KV for {needed} tokens ({sequence.target} of prompt and "
                f"{sequence.generated_room} to generate), the cache holds {self.pool.capacity}",
                help="lower max_tokens, shorten the prompt, or give the engine a larger kv_tokens",
            )
        self.waiting[sequence] = None
        self._changed = True

    def admit(self) -> list[Sequence]:
        """Starts waiting sequences as far as there is room for them, and returns those."""
        self._take_restored()
        if not self._changed or len(self.running) >= self._max_running:
            return []
        self._changed = False
        window = self._in_order()
        self._refused_tokens = 0
        try:
            return self._admit_in_order(window)
        finally:
            self._forget_wanted()

    def _admit_in_order(self, window: list[tuple[Sequence, int]]) -> list[Sequence]:
        admitted = self._admit_from(window)
        if window and not self.running and self._holds_off():
            return []
        self._held_off_since = None
        if window and not self.running:
            first = window[0][0]
            if not self._try_admit(first, spares=False):
                # Storages that are shared with evicted neighbours hold more than they serve: start from an empty tree.
                self.tree.evict(self.pool.capacity + 1)
                self._is_device_full = False
                if not self._try_admit(first, spares=False):
                    assert self._is_device_full, "a sequence that fits the pool does not fit the empty pool"
                    self.refused.append(first)
                    return admitted
            admitted.append(first)
        for sequence, _ in window if admitted else ():
            if sequence in self.waiting:
                self._age(sequence, admitted)
        return admitted

    def _age(self, sequence: Sequence, admitted: list[Sequence]) -> None:
        """Note who was admitted before a waiting sequence.

        Where runs share service it is the run that waits: a huge one would else be aged as a whole, and go first.
        """
        if self._shares_service and sequence.owner in {other.owner for other in admitted} - {None}:
            sequence.overtaken = 0
        else:
            sequence.overtaken += sum(_weight(other, sequence) for other in admitted)

    def _change(self, command: Callable[[], None]) -> None:
        """Carry out what may make room for others: a run has ended."""
        command()
        self._changed = True

    def _holds_off(self) -> bool:
        """Whether to wait for those whose KV would have to go: not longer than it would take to compute that again."""
        now = time.perf_counter()
        if self._held_off_since is None:
            self._held_off_since = now
        patience = min(self._refused_tokens * self.seconds_per_token, MOST_PATIENCE_SECONDS)
        self.holds_off_seconds = max(0.0, self._held_off_since + patience - now)
        self._changed = self.holds_off_seconds > 0
        return self._changed

    def plan(self) -> list[Chunk]:
        """What the next step computes, in the order of `running`.

        While there is nothing but copies to wait for, it begins behind the first of them, which a GPU does by itself.
        """
        self._take_restored()
        chunks = self._next_chunks()
        if not chunks and self._restoring:
            self._restored(next(iter(self._restoring)))
            chunks = self._next_chunks()
        return chunks

    def _next_chunks(self) -> list[Chunk]:
        if self._round is not None and not self._prefilling and self._round.goes_on:
            return self._round
        chunks = self._new_chunks()
        self._round = Round(chunks, self.pool) if self._is_round(chunks) else None
        return self._round or chunks

    def _is_round(self, chunks: list[Chunk]) -> bool:
        """Whether all that run have one token to compute each, and choose the next one freely."""
        if self._prefilling or not chunks or len(chunks) < len(self.running):
            return False
        return all(chunk.count == 1 and chunk.draws and chunk.sequence.matcher is None for chunk in chunks)

    def _new_chunks(self) -> list[Chunk]:
        logit_rows = self._max_logit_rows
        chunks = {
            sequence: chunk
            for sequence in self.running
            if not sequence.is_prefilling and (chunk := _next_chunk(sequence, self._chunk_tokens, logit_rows)).count
        }
        num_decoding = sum(chunk.count for chunk in chunks.values())
        budget = max(self._chunk_tokens - num_decoding, self._chunk_tokens // 4, 1)
        if self._prefilling:
            budget = self._pace.prefill_tokens(num_decoding, budget)
        for sequence in self._least_served_first(self._prefilling):
            if sequence.restore is not None:
                continue
            chunk = _next_chunk(sequence, budget, logit_rows)
            if chunk.count:
                chunks[sequence] = chunk
                budget -= chunk.count
                logit_rows -= chunk.num_logits if sequence.is_score else 0
        return [chunks[sequence] for sequence in self.running if sequence in chunks]

    def _take_restored(self) -> None:
        """Goes on with the sequences whose copies have ended."""
        for sequence in list(self._restoring):
            assert sequence.restore is not None and sequence.restore.transfer is not None
            if sequence.restore.transfer.is_done():
                self._restored(sequence)

    def _restored(self, sequence: Sequence) -> None:
        """What is computed from now on may read what a sequence had copied back."""
        restore, sequence.restore = sequence.restore, None
        assert self.host is not None and restore is not None and restore.transfer is not None
        del self._restoring[sequence]
        restore.transfer.join()
        self.host.end(restore, is_used=True)
        sequence.computed += restore.count
        sequence.cached += restore.count
        self.hit_tokens += restore.count
        self._changed = True
        if sequence.tail_start < sequence.awaited:
            self._publish(sequence)

    def num_prefilled(self, chunks: list[Chunk]) -> int:
        """How many tokens of prompts are computed. To be asked before the chunks advance."""
        return sum(chunk.count for chunk in chunks if chunk.sequence.is_prefilling) if self._prefilling else 0

    def has_taken(self, chunks: list[Chunk], num_prefilled: int, seconds: float) -> None:
        """A step took so long, in which so many tokens of prompts were computed."""
        num_tokens = len(chunks) if isinstance(chunks, Round) else sum(chunk.num_rows for chunk in chunks)
        self._pace.note(num_tokens - num_prefilled, num_prefilled, seconds)
        if num_tokens >= _TIMED_TOKENS:
            self.seconds_per_token = seconds / num_tokens

    def advance_all(self, chunks: list[Chunk]) -> None:
        """Records that a step was launched."""
        if self._shares_service or not isinstance(chunks, Round):
            for chunk in chunks:
                self.advance(chunk)
            return
        for chunk in chunks:
            chunk.sequence.computed += 1
        self.computed_tokens += len(chunks)

    def advance(self, chunk: Chunk) -> None:
        """Records that a chunk was launched; a prompt that is complete goes into the tree for others to share."""
        sequence = chunk.sequence
        was_prefilling = sequence.is_prefilling
        self._count(sequence, chunk.count)
        if not was_prefilling:
            return
        self._changed = True
        if not sequence.is_prefilling:
            del self._prefilling[sequence]
        if self._prefix_cache and (not sequence.is_prefilling or sequence.tail_start < sequence.awaited):
            self._publish(sequence)

    def keep(self, sequence: Sequence, count: int) -> None:
        """Records that so many of its next tokens were computed as a draft. What else was is overwritten."""
        self._count(sequence, count)

    def take_back(self, sequence: Sequence) -> None:
        """Records that what was launched behind its newest token went on from a wrong one, or is wanted no more."""
        if sequence.num_pending:
            self._count(sequence, -sequence.num_pending)
            self.discarded_tokens += sequence.num_pending
            sequence.num_pending = 0

    def _count(self, sequence: Sequence, num_tokens: int) -> None:
        """So many more of a sequence's tokens were computed."""
        sequence.computed += num_tokens
        self.computed_tokens += num_tokens
        if self._shares_service and sequence.owner is not None:
            self.uses.serve(sequence.owner, num_tokens)

    def finish(self, sequence: Sequence) -> None:
        """Ends a sequence, putting its generated tokens into the tree."""
        self.take_back(sequence)
        generated = sequence.computed - sequence.prompt_len
        use, node = sequence.request.use, sequence.node
        if self._prefix_cache and sequence.generated_extent is not None and generated > 0:
            extent = self.pool.trim(sequence.generated_extent, generated)
            sequence.generated_extent = None
            tokens = sequence.tokens[sequence.prompt_len : sequence.computed]
            node = self.tree.insert(node, tokens, extent, dead=use is not None and use.keep is False)
        if use is not None:
            self.uses.end(use, node)
        self.release(sequence)

    def release(self, sequence: Sequence) -> None:
        """Ends a sequence wherever it is, and gives back what it holds."""
        self.waiting.pop(sequence, None)
        self._prefilling.pop(sequence, None)
        self._restoring.pop(sequence, None)
        if sequence in self.running:
            self.running.remove(sequence)
            self._round = None
        self._give_back(sequence)
        self._changed = True

    def _give_back(self, sequence: Sequence) -> None:
        """Gives back the KV that a sequence holds."""
        for extent in (sequence.prompt_extent, sequence.generated_extent):
            if extent is not None:
                self.pool.release(extent)
        self.tree.unlock(sequence.node)
        if self.host is not None and sequence.restore is not None:
            self.host.end(sequence.restore, is_used=False)
        sequence.node = sequence.prompt_extent = sequence.generated_extent = sequence.restore = None

    def clear_cache(self) -> None:
        """Drops all KV that nothing running uses."""
        self.tree.clear()
        if self.host is not None:
            self.host.tree.clear()

    def tree_on_host(self) -> RadixTree | None:
        """The prefixes in host memory, when all that is copied has come; None without a tier."""
        if self.host is None:
            return None
        self.host.copier.wait_all()
        return self.host.tree

    def check(self) -> None:
        """Raises AssertionError when a count is wrong or, with nothing running, KV or a lock was left behind."""
        self.tree.check()
        if self.host is not None:
            self.host.check(is_idle=not self.has_work)
        if not self.has_work:
            assert self.tree.locked_tokens == 0, f"{self.tree.locked_tokens} tokens are locked and nothing runs"
            held = self.tree.held_tokens()
            assert held == self.pool.used, f"the tree holds {held} tokens of the {self.pool.used} in use"

    def _in_order(self) -> list[tuple[Sequence, int]]:
        """The longest waiting sequences in the order in which they should start, and how much of each is cached."""
        window = [(sequence, self._cached_len(sequence)) for sequence in self._window()]
        return sorted(window, key=self._admission_key)

    def _window(self) -> list[Sequence]:
        """Those that are compared: the longest waiting, or where service counts half of them and the least served."""
        if not self._shares_service or len(self.waiting) <= ORDER_WINDOW:
            return list(islice(self.waiting, ORDER_WINDOW))
        oldest = ORDER_WINDOW // 2
        rest = islice(self.waiting, oldest, None)
        return [*islice(self.waiting, oldest), *nsmallest(ORDER_WINDOW - oldest, rest, key=self._class_of_service)]

    def _admission_key(self, entry: tuple[Sequence, int]) -> tuple[bool, int, bool, int, int, int]:
        """What is aged goes first, then runs that have begun, so that few are under way when memory is short."""
        sequence, cached = entry
        if _is_aged(sequence):
            return False, 0, False, 0, 0, sequence.arrival
        service = self._class_of_service(sequence)
        if not _is_planned(sequence):
            return True, service, True, 0, 0, sequence.arrival
        use = sequence.request.use
        if use is not None and self.uses.has_begun(use.owner):
            return True, service, False, use.owner.order, -cached, sequence.arrival
        return True, service, True, 0, -cached, sequence.arrival

    def _class_of_service(self, sequence: Sequence) -> int:
        """How much was computed for the sequence's run, where that counts: 0 is least."""
        use = sequence.request.use
        if not self._shares_service or use is None or _is_aged(sequence):
            return 0
        return (self.uses.served(use.owner) // FIRST_CLASS_TOKENS).bit_length()

    def _least_served_first(self, sequences: Iterable[Sequence]) -> Iterable[Sequence]:
        return sorted(sequences, key=self._class_of_service) if self._shares_service else sequences

    def _cached_len(self, sequence: Sequence) -> int:
        return self.tree.match_len(sequence.keys[: sequence.first_logits])

    def _admit_from(self, window: list[tuple[Sequence, int]]) -> list[Sequence]:
        admitted: list[Sequence] = []
        backlog: Counter[int] = Counter()
        for sequence in self._prefilling:
            backlog[self._class_of_service(sequence)] += sequence.num_to_compute
        holds_back = False
        for sequence, cached in window:
            service = self._class_of_service(sequence)
            before = sum(num_tokens for other, num_tokens in backlog.items() if other <= service)
            # What cannot be computed soon should not take memory yet, and may find more of its prompt cached later.
            if len(self.running) >= self._max_running or before >= self._chunk_tokens:
                break
            is_aged = _is_aged(sequence)
            if self._waits_for_prefill(sequence, cached):
                if is_aged:
                    break
                continue
            if not is_aged and self._begins_run(sequence):
                # Those behind it would take what it waits for.
                holds_back = holds_back or not self._has_room_for_run(sequence, cached)
                if holds_back:
                    continue
            if self._try_admit(sequence, spares=not is_aged):
                backlog[service] += sequence.num_to_compute
                admitted.append(sequence)
            elif is_aged:
                break
        return admitted

    def _begins_run(self, sequence: Sequence) -> bool:
        """Whether it is the first request of a run that may be held back."""
        use = sequence.request.use
        return use is not None and use.plan is True and not self.uses.has_begun(use.owner)

    def _has_room_for_run(self, sequence: Sequence, cached: int) -> bool:
        """Whether there is memory for all that its run and those under way will need."""
        use = sequence.request.use
        assert use is not None
        expected = self.uses.expected(use, sequence.target - cached + sequence.generated_room)
        has_room = self.uses.reserved + cached + expected <= self.pool.capacity
        self._refused_tokens = max(self._refused_tokens, 0 if has_room else expected)
        return has_room

    def _waits_for_prefill(self, sequence: Sequence, cached: int) -> bool:
        """Whether another sequence is about to compute more of this one's prompt than is cached."""
        if not self._prefix_cache or not _is_planned(sequence):
            return False
        wanted = sequence.keys[: sequence.first_logits]
        for other in self._prefilling:
            shared = common_len(wanted, other.keys[: other.target])
            if shared > max(cached, other.computed):
                other.awaited = max(other.awaited, shared)
                return True
            if shared > max(cached, other.tail_start):
                self._publish(other)
        return False

    def _try_admit(self, sequence: Sequence, *, spares: bool = True) -> bool:
        """Takes the KV for all that the sequence may need, evicting if that helps, and starts it."""
        wanted = sequence.keys[: sequence.first_logits]
        node = self.tree.match(wanted) if self._prefix_cache else None
        self.tree.lock(node)
        sequence.node = node
        if self.host is not None:  # before anything is evicted there for what goes from here
            sequence.restore = self.host.find(wanted, sequence.tail_start, self.seconds_per_token)
        prompt_room = sequence.target - sequence.tail_start
        if not self._take_room(sequence, prompt_room, spares):
            self._give_back(sequence)
            return False
        if self.host is not None and sequence.restore is not None:
            assert sequence.prompt_extent is not None
            self.host.begin(sequence.restore, sequence.prompt_extent)
            self._restoring[sequence] = None
        sequence.computed = sequence.cached = sequence.tail_start
        self.hit_tokens += sequence.cached
        self.prompt_tokens += sequence.target
        self.speculation_hits += self.tree.use(node)
        del self.waiting[sequence]
        self._prefilling[sequence] = None
        if sequence.request.use is not None:
            self.uses.begin(sequence.request.use, node, prompt_room + sequence.generated_room)
        insort(self.running, sequence, key=lambda other: other.order_key)
        self._round = None
        return True

    def _take_room(self, sequence: Sequence, prompt_room: int, spares: bool) -> bool:
        missing = prompt_room + sequence.generated_room - self.pool.free
        if missing > self.tree.evictable_tokens + self.pool.wasted:
            return False
        if missing > 0:
            spare = self._spared(sequence) if spares else None
            self._mark_wanted()
            if self.tree.evict(missing, spare=spare, whole=True) < missing:
                self._refused_tokens = max(self._refused_tokens, missing)
                return False
        try:
            sequence.prompt_extent = self.pool.allocate(prompt_room)
            if sequence.generated_room:
                sequence.generated_extent = self.pool.allocate(sequence.generated_room)
        except PoolExhausted as error:
            self._is_device_full = isinstance(error, DeviceFull)
            return False
        return True

    def _spared(self, sequence: Sequence) -> Order | None:
        """What a request does not evict: what is used before it; and all that is expected, while its run goes on."""
        use = sequence.request.use
        if use is None:
            return None
        others = (other.request.use for other in self.running)
        goes_on = use.plan is True and any(other is not None and other.owner is use.owner for other in others)
        return _ALL_MARKED if goes_on else use.order

    def _mark_wanted(self) -> None:
        """Have what waiting requests begin with evicted late, until all were looked at."""
        if self._wanted is not None:
            return
        self._wanted = []
        for sequence in islice(self.waiting, ORDER_WINDOW):
            use = sequence.request.use
            node = self.tree.last_used_by(sequence.keys[: sequence.first_logits])
            if node is not None and use is not None and _is_planned(sequence):
                self._wanted.append(self.tree.mark(node, use.order))

    def _forget_wanted(self) -> None:
        for mark in self._wanted or ():
            self.tree.unmark(mark)
        self._wanted = None

    def _publish(self, sequence: Sequence) -> None:
        """Moves what is computed of the sequence's own part of the prompt into the tree."""
        assert sequence.prompt_extent is not None
        start, stop = sequence.tail_start, sequence.computed
        extent, rest = sequence.prompt_extent, None
        if stop < sequence.target:
            extent, rest = self.pool.split(extent, stop - start)
        node = self.tree.insert(sequence.node, sequence.keys[start:stop], extent)
        self.tree.lock(node)
        self.tree.unlock(sequence.node)
        sequence.node, sequence.prompt_extent = node, rest


def _is_planned(sequence: Sequence) -> bool:
    use = sequence.request.use
    return use is None or use.plan is not False


def _weight(other: Sequence, sequence: Sequence) -> float:
    """What it counts for a sequence that another one was admitted: nothing if that came earlier."""
    if other.arrival < sequence.arrival:
        return 0
    own, others = sequence.owner, other.owner
    is_batch = own is not None and others is not None and own.batch is not None and own.batch is others.batch
    return BATCH_WEIGHT if is_batch else 1


def _is_aged(sequence: Sequence) -> bool:
    return sequence.overtaken >= MAX_OVERTAKEN


def _next_chunk(sequence: Sequence, budget: int, logit_rows: int) -> Chunk:
    """As much of the tokens as the budget allows, and not more logits than `logit_rows`. Hidden states are small."""
    start = sequence.computed
    stop = min(start + budget, sequence.goal)
    if not sequence.wants_all_logits:
        return Chunk(sequence, stop - start, int(stop == sequence.num_placed))
    if not sequence.is_embedding:
        stop = min(stop, max(start, sequence.first_logits) + logit_rows)
    return Chunk(sequence, stop - start, max(0, stop - max(start, sequence.first_logits)))
