"""Engines that only count, behind the router: continuous batching with a prefix cache, in simulated seconds.

A step computes a chunk of the prompts that have been admitted, the first first, and one token of every sequence whose
prompt is done. Requests are admitted in their order as far as their KV fits; their prompts are matchable from then on,
since whoever comes later is computed later. Nothing here depends on the machine.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from ramify.runtime.known_cache import KnownCache
from ramify.runtime.radix import Node, TokenArray
from ramify.runtime.routing import Costs, Routed, Router


@dataclass(frozen=True)
class Engine:
    """What an engine takes, in seconds: each step, each decoding sequence in it, each token of a prompt.

    chunk: tokens of prompts that a step computes at most. kv_tokens: its memory.
    """

    step: float
    decode: float
    prefill: float
    chunk: int
    kv_tokens: int

    @property
    def costs(self) -> Costs:
        """What the router is told; a step is shared by the eight sequences that are thought to run."""
        return Costs(self.prefill, self.decode + self.step / 8)


@dataclass(frozen=True, eq=False, slots=True)
class Request:
    """A recorded request. max_tokens: its limit; after: requests of the same row that had ended when it was made."""

    workload: str
    prompt: TokenArray
    matchable: int
    generated: TokenArray
    max_tokens: int
    after: tuple[int, ...]


Row = Sequence[Request]


@dataclass(eq=False, slots=True)
class _Running:
    request: Request
    row: int
    index: int
    routed: Routed | None = None
    node: Node | None = None
    cached: int = 0
    to_prefill: int = 0
    to_decode: int = 0


@dataclass(eq=False, slots=True)
class _Simulated:
    """One engine: its queue, what runs, its cache, and how long it has been busy."""

    engine: Engine
    cache: KnownCache
    waiting: deque[_Running] = field(default_factory=deque)
    prefilling: deque[_Running] = field(default_factory=deque)
    decoding: list[_Running] = field(default_factory=list)
    reserved: int = 0
    busy: float = 0.0
    is_stepping: bool = False

    def admit(self) -> None:
        """Take in what fits. Raises ValueError for a request that never will."""
        while self.waiting:
            first = self.waiting[0]
            request = first.request
            room = len(request.generated)
            cached = min(self.cache.match_len(request.prompt), request.matchable)
            node = self.cache.hold(request.prompt, self.reserved + room)
            if node is None:
                if not self.prefilling and not self.decoding:
                    raise ValueError(f"{len(request.prompt) + room} tokens do not fit into {self.cache.kv_tokens}")
                return
            self.waiting.popleft()
            self.reserved += room
            first.node, first.cached = node, cached
            first.to_prefill, first.to_decode = len(request.prompt) - cached, room - 1
            self.prefilling.append(first)

    def step(self) -> tuple[float, list[_Running], list[_Running]]:
        """Seconds of the next step, whose prompts it completes, and who ends with it."""
        left, computed = self.engine.chunk, 0
        first_tokens = []
        decoding = len(self.decoding)
        for running in self.decoding:
            running.to_decode -= 1
        while self.prefilling and left:
            running = self.prefilling[0]
            count = min(left, running.to_prefill)
            running.to_prefill -= count
            left, computed = left - count, computed + count
            if not running.to_prefill:
                first_tokens.append(self.prefilling.popleft())
        self.decoding += first_tokens
        ended = [running for running in self.decoding if running.to_decode <= 0]
        if ended:
            self.decoding = [running for running in self.decoding if running.to_decode > 0]
        seconds = self.engine.step + self.engine.decode * decoding + self.engine.prefill * computed
        self.busy += seconds
        return seconds, first_tokens, ended

    def release(self, running: _Running) -> None:
        """It has ended: its KV stays as long as there is room."""
        assert running.node is not None
        self.cache.release(running.node)
        self.reserved -= len(running.request.generated)
        self.cache.add(whole(running.request))


def whole(request: Request) -> TokenArray:
    """What is cached when it has ended: the last token that is generated is never computed."""
    return np.concatenate([request.prompt, request.generated[:-1]])


class Policy(Protocol):
    """Chooses replicas for requests that are made at the same time."""

    def route_all(self, requests: Sequence[tuple[TokenArray, int]]) -> list[Routed]: ...

    def first_token(self, routed: Routed) -> None: ...

    def ended(self, routed: Routed, generated: TokenArray) -> None: ...


class RoundRobin:
    """One replica after the other."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._turn = 0

    def route_all(self, requests: Sequence[tuple[TokenArray, int]]) -> list[Routed]:
        """See Policy."""
        first, self._turn = self._turn, self._turn + len(requests)
        names = [self._names[(first + n) % len(self._names)] for n in range(len(requests))]
        return [Routed(name, tokens, 0, 0.0, 0.0) for name, (tokens, _) in zip(names, requests, strict=True)]

    def first_token(self, routed: Routed) -> None:
        """See Policy."""

    def ended(self, routed: Routed, generated: TokenArray) -> None:
        """See Policy."""


class LeastLoaded:
    """Where the fewest requests are outstanding, the first of several."""

    def __init__(self, names: Sequence[str]) -> None:
        self._outstanding = dict.fromkeys(names, 0)

    def route_all(self, requests: Sequence[tuple[TokenArray, int]]) -> list[Routed]:
        """See Policy."""
        found = []
        for tokens, _ in requests:
            name = min(self._outstanding, key=self._outstanding.__getitem__)
            self._outstanding[name] += 1
            found.append(Routed(name, tokens, 0, 0.0, 0.0))
        return found

    def first_token(self, routed: Routed) -> None:
        """See Policy."""

    def ended(self, routed: Routed, generated: TokenArray) -> None:
        """See Policy."""
        self._outstanding[routed.replica] -= 1


def policy(name: str, replicas: int, engine: Engine) -> Policy:
    """The router ("prefix"), or what it is compared with ("round-robin", "least-loaded")."""
    names = [str(number) for number in range(replicas)]
    if name != "prefix":
        return {"round-robin": RoundRobin, "least-loaded": LeastLoaded}[name](names)
    router = Router(engine.costs)
    for each in names:
        router.add(each, engine.kv_tokens)
    return router


@dataclass
class Outcome:
    """What a run took. busy: seconds of each replica. prompt, cached, generated: tokens, by workload."""

    seconds: float
    busy: list[float]
    prompt: dict[str, int] = field(default_factory=dict)
    cached: dict[str, int] = field(default_factory=dict)
    generated: int = 0
    requests: int = 0

    @property
    def hit_rate(self) -> float:
        """Tokens of prompts that came from a cache, of all."""
        return sum(self.cached.values()) / sum(self.prompt.values())

    @property
    def imbalance(self) -> float:
        """The longest busy time over the mean."""
        return max(self.busy) * len(self.busy) / sum(self.busy)


class Simulation:
    """Rows of recorded requests on several engines; `in_flight` rows at a time; the next begins when one ends."""

    def __init__(self, rows: Sequence[Row], replicas: int, engine: Engine, chosen: Policy, in_flight: int) -> None:
        self._rows = rows
        self._policy = chosen
        self._in_flight = in_flight
        self._replicas = {str(n): _Simulated(engine, KnownCache(engine.kv_tokens)) for n in range(replicas)}
        self._open = [set(range(len(row))) for row in rows]
        self._ended: list[set[int]] = [set() for _ in rows]
        self._next_row = 0
        self._made: list[_Running] = []
        self._touched: dict[str, None] = {}
        self._events: list[tuple[float, int, str, list[_Running], list[_Running]]] = []
        self._num_events = 0
        self.outcome = Outcome(0.0, [])

    def run(self) -> Outcome:
        """Run all rows. Raises ValueError where a request does not fit into an engine."""
        for _ in range(min(self._in_flight, len(self._rows))):
            self._begin_row()
        self._send(0.0)
        while self._events:
            now, _, name, first_tokens, ended = heapq.heappop(self._events)
            self._take(name, first_tokens, ended)
            while self._events and self._events[0][0] == now:
                _, _, name, first_tokens, ended = heapq.heappop(self._events)
                self._take(name, first_tokens, ended)
            self._send(now)
            self.outcome.seconds = now
        self.outcome.busy = [replica.busy for replica in self._replicas.values()]
        return self.outcome

    def _begin_row(self) -> None:
        self._next_row += 1
        self._make(self._next_row - 1)

    def _make(self, row: int) -> None:
        """The requests of a row that wait for nothing any more."""
        for index in sorted(self._open[row]):
            request = self._rows[row][index]
            if self._ended[row].issuperset(request.after):
                self._open[row].discard(index)
                self._made.append(_Running(request, row, index))

    def _send(self, now: float) -> None:
        made, self._made = self._made, []
        asked = [(running.request.prompt, running.request.max_tokens) for running in made]
        for running, routed in zip(made, self._policy.route_all(asked), strict=True):
            running.routed = routed
            self._replicas[routed.replica].waiting.append(running)
            self._touched[routed.replica] = None
        touched, self._touched = self._touched, {}
        for name in touched:
            self._step(now, name)

    def _step(self, now: float, name: str) -> None:
        replica = self._replicas[name]
        if replica.is_stepping:
            return
        replica.admit()
        if replica.prefilling or replica.decoding:
            replica.is_stepping = True
            seconds, first_tokens, ended = replica.step()
            self._num_events += 1
            heapq.heappush(self._events, (now + seconds, self._num_events, name, first_tokens, ended))

    def _take(self, name: str, first_tokens: list[_Running], ended: list[_Running]) -> None:
        """A replica's step is over."""
        replica = self._replicas[name]
        replica.is_stepping = False
        self._touched[name] = None
        for running in first_tokens:
            assert running.routed is not None
            self._policy.first_token(running.routed)
        for running in ended:
            replica.release(running)
            self._end(running)

    def _end(self, running: _Running) -> None:
        assert running.routed is not None
        request, row, found = running.request, running.row, self.outcome
        self._policy.ended(running.routed, request.generated)
        found.prompt[request.workload] = found.prompt.get(request.workload, 0) + len(request.prompt)
        found.cached[request.workload] = found.cached.get(request.workload, 0) + running.cached
        found.generated += len(request.generated)
        found.requests += 1
        self._ended[row].add(running.index)
        self._make(row)
        if len(self._ended[row]) == len(self._rows[row]) and self._next_row < len(self._rows):
            self._begin_row()


def copies(rows: Sequence[Row], count: int, vocab: int, seed: int) -> list[Row]:
    """The same rows for `count` tenants that share nothing with one another; the rows of all come at random, those of
    one workload of a tenant in their order.
    """
    queues = []
    for tenant in range(count):
        by_workload: dict[str, deque[Row]] = {}
        for row in rows:
            moved = [_moved(request, tenant * vocab) for request in row]
            by_workload.setdefault(row[0].workload, deque()).append(moved)
        queues += by_workload.values()
    return list(_merged(queues, random.Random(seed)))


def _moved(request: Request, by: int) -> Request:
    return Request(
        request.workload,
        request.prompt + by,
        request.matchable,
        request.generated + by,
        request.max_tokens,
        request.after,
    )


def _merged(queues: Sequence[deque[Row]], draw: random.Random) -> Iterator[Row]:
    turns = [queue for queue in queues for _ in queue]
    draw.shuffle(turns)
    for queue in turns:
        yield queue.popleft()
