"""Which of several engines a request goes to: the one that has most of its prompt, unless its load says otherwise.

After Preble (arXiv 2407.00023, section 3): a request is sent where its prefix is cached (exploit) if that saves more
than is left to compute, otherwise where it costs least (explore); where too many follow one prefix, the next one goes
elsewhere, which makes a copy of the prefix. Here load is what is outstanding, not what came in the last minutes, and
requests that are known together are placed by their prefix tree: a subtree that is no replica's whole share goes to
one. Nothing here talks to engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from ..ir.errors import UsageError
from .known_cache import KnownCache
from .radix import TokenArray, common_len

# A replica is overloaded whose load is more than so many times the least one and what a copy of the prefix costs.
_MOST_LOAD = 3.0
# What is generated is guessed by the mean of the last so many requests.
_MEAN_OVER = 256


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of an engine: to compute a token of a prompt, and for a sequence's part in generating one."""

    prefill: float
    decode: float


@dataclass(frozen=True, eq=False, slots=True)
class Routed:
    """A request and where it goes. cached: tokens of its prompt that are thought to be there.

    seconds: the work that was expected to begin with, of which prefill_seconds before the first token.
    """

    replica: str
    token_ids: TokenArray
    cached: int
    seconds: float
    prefill_seconds: float


@dataclass(eq=False, slots=True)
class _Replica:
    """An engine. load: seconds of work outstanding; prompt, cached: tokens of all prompts so far, and found there."""

    name: str
    cache: KnownCache
    outstanding: dict[Routed, float] = field(default_factory=dict)
    load: float = 0.0
    prompt: int = 0
    cached: int = 0

    def settle(self, routed: Routed, seconds: float) -> None:
        """So many seconds of a request's work are still to do."""
        self.load += seconds - self.outstanding[routed]
        self.outstanding[routed] = seconds
        if not seconds:
            del self.outstanding[routed]
            self.load = self.load if self.outstanding else 0.0

    @property
    def hit_rate(self) -> float:
        return self.cached / self.prompt if self.prompt else 0.0


class Router:
    """Chooses among replicas, which come and go. Not thread-safe.

    Tokens are given as int64 arrays (length,).
    """

    def __init__(self, costs: Costs, expected_tokens: float = 32) -> None:
        """expected_tokens: what requests generate on average, until some have ended."""
        self.costs = costs
        self.expected_tokens = expected_tokens
        self._num_ended = 0
        self._replicas: dict[str, _Replica] = {}

    @property
    def loads(self) -> dict[str, float]:
        """Seconds of outstanding work of each replica."""
        return {name: replica.load for name, replica in self._replicas.items()}

    def add(self, name: str, kv_tokens: int) -> None:
        """A replica has come, with an empty cache of so many tokens. Raises UsageError where one is called so."""
        if name in self._replicas:
            raise UsageError(f"there is a replica {name!r} already", help="give each replica a name of its own")
        self._replicas[name] = _Replica(name, KnownCache(kv_tokens))

    def remove(self, name: str) -> list[Routed]:
        """A replica has gone, with its cache; its outstanding requests, which have to be routed anew, in their order.

        Raises UsageError where none is called so.
        """
        if name not in self._replicas:
            raise UsageError(
                f"there is no replica {name!r}",
                help=f"there {'are ' + ', '.join(self._replicas) if self._replicas else 'is none'}",
            )
        return list(self._replicas.pop(name).outstanding)

    def route(self, token_ids: TokenArray, max_tokens: int) -> Routed:
        """Choose where a request goes that generates at most so many tokens. Raises UsageError without replicas."""
        return self._place(token_ids, max_tokens, self._choose(token_ids))

    def route_all(self, requests: Sequence[tuple[TokenArray, int]]) -> list[Routed]:
        """The same for requests that are known together, each a prompt and its max_tokens; in their order.

        Those that share a prefix go to one replica as far as they are not more than its share of all that is to do.
        """
        order = sorted(range(len(requests)), key=lambda index: requests[index][0].tolist())
        found: dict[int, Routed] = {}
        share = self._share(requests)
        for group in self._groups([requests[index] for index in order], share):
            together = order[group.start : group.stop]
            replica = self._choose(requests[together[0]][0][: group.shared])
            for index in together:
                found[index] = self._place(*requests[index], replica)
        return [found[index] for index in range(len(requests))]

    def first_token(self, routed: Routed) -> None:
        """A request's prompt has been computed."""
        replica = self._replicas.get(routed.replica)
        if replica is not None and routed in replica.outstanding:
            replica.settle(routed, routed.seconds - routed.prefill_seconds)

    def ended(self, routed: Routed, generated: TokenArray) -> None:
        """A request has ended, with these tokens, or fewer than it might where it failed or was cancelled.

        Where its replica has gone meanwhile, nothing happens.
        """
        replica = self._replicas.get(routed.replica)
        if replica is None or routed not in replica.outstanding:
            return
        replica.settle(routed, 0.0)
        # The last token that is generated is never computed.
        replica.cache.add(np.concatenate([routed.token_ids, generated[:-1]]))
        self._num_ended = min(self._num_ended + 1, _MEAN_OVER)
        self.expected_tokens += (len(generated) - self.expected_tokens) / self._num_ended

    def _decode_seconds(self, max_tokens: int) -> float:
        return min(max_tokens, self.expected_tokens) * self.costs.decode

    def _place(self, token_ids: TokenArray, max_tokens: int, replica: _Replica) -> Routed:
        # The last token of a prompt is computed in any case, for its logits.
        cached = min(replica.cache.match_len(token_ids), max(len(token_ids) - 1, 0))
        prefill = (len(token_ids) - cached) * self.costs.prefill
        seconds = prefill + self._decode_seconds(max_tokens)
        routed = Routed(replica.name, token_ids, cached, seconds, prefill)
        replica.cache.add(token_ids)
        replica.outstanding[routed] = seconds
        replica.load += seconds
        replica.prompt += len(token_ids)
        replica.cached += cached
        return routed

    def _choose(self, token_ids: TokenArray) -> _Replica:
        """Where a prompt goes. Raises UsageError without replicas."""
        replicas = list(self._replicas.values())
        if not replicas:
            raise UsageError("there is no replica to send a request to", help="add one")
        lengths = [replica.cache.match_len(token_ids) for replica in replicas]
        longest = max(lengths)
        least = min(replicas, key=lambda replica: replica.load)
        if longest > len(token_ids) - longest:
            holders = [replica for replica, length in zip(replicas, lengths, strict=True) if length == longest]
            best = min(holders, key=lambda replica: replica.load)
            saved = (longest - lengths[replicas.index(least)]) * self.costs.prefill
            if best.load <= _MOST_LOAD * least.load + saved:
                return best
        index = min(range(len(replicas)), key=lambda at: self._cost(replicas[at], len(token_ids), lengths[at]))
        return replicas[index]

    def _cost(self, replica: _Replica, length: int, cached: int) -> float:
        """Seconds until a prompt is computed on a replica, with what has to be computed again of what it evicts."""
        missing = length - cached
        evicted = max(missing - replica.cache.free, 0) * replica.hit_rate
        return replica.load + (missing + evicted) * self.costs.prefill

    def _share(self, requests: Sequence[tuple[TokenArray, int]]) -> float:
        """Seconds of each replica if all that is outstanding and these requests were spread evenly."""
        new = sum(len(tokens) * self.costs.prefill + self._decode_seconds(most) for tokens, most in requests)
        return (sum(self.loads.values()) + new) / max(len(self._replicas), 1)

    def _groups(self, requests: Sequence[tuple[TokenArray, int]], share: float) -> list[_Group]:
        """Neighbours of sorted requests that share a prefix and are no more work than a share; one by one otherwise."""
        common = [common_len(one[0], two[0]) for one, two in pairwise(requests)]
        groups: list[_Group] = []
        todo = [(0, len(requests))] if requests else []
        while todo:
            start, stop = todo.pop()
            depth = min(common[start : stop - 1], default=len(requests[start][0]))
            if stop - start == 1 or (depth and self._work(requests[start:stop], depth) <= share):
                groups.append(_Group(start, stop, depth))
                continue
            cuts = [at + 1 for at in range(start, stop - 1) if common[at] == depth]
            todo += reversed(list(zip([start, *cuts], [*cuts, stop], strict=True)))
        return groups

    def _work(self, requests: Sequence[tuple[TokenArray, int]], depth: int) -> float:
        """At most what requests take that have so many tokens in common."""
        own = sum(len(token_ids) - depth for token_ids, _ in requests)
        return (depth + own) * self.costs.prefill + sum(self._decode_seconds(most) for _, most in requests)


@dataclass(frozen=True, slots=True)
class _Group:
    """Requests of a sorted list that go together. shared: tokens that they have in common."""

    start: int
    stop: int
    shared: int
