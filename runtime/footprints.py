"""How much KV the runs that have begun will need, so that no more begin than can end without evicting one another.

A run's footprint is the most KV that its prompts take at one time when its requests come one after another, less what
it shares with those before it. By how much a run grows beyond its first request is learned from runs of the same
program; before any has ended, from those under way, with the more reserve the fewer requests they have made.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .uses import Owner

# What a run of which nothing is known may grow by, in sizes of its first request.
_UNKNOWN_GROWTH = 15
# So many programs are remembered, and so many of the last runs of each.
_NUM_KINDS = 256
_NUM_RUNS = 16


@dataclass(slots=True)
class _Begun:
    """A run under way: tokens of its first request and at its peak so far, and how many requests there were."""

    first: int
    goes_on: bool
    peak: int = 0
    num_requests: int = 0

    @property
    def growth(self) -> int:
        return self.peak - self.first


@dataclass(slots=True)
class _Kind:
    """Runs of one program: by how much the last ones have grown, and those under way."""

    grown: deque[int] = field(default_factory=lambda: deque(maxlen=_NUM_RUNS))
    begun: dict[Owner, _Begun] = field(default_factory=dict)


class Footprints:
    """What runs take and will take, in tokens. Not thread-safe: the engine's thread owns it."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()

    def expected(self, owner: Owner, first: int, *, goes_on: bool) -> int:
        """What a run will take whose first request takes so much. goes_on: whether another may follow that."""
        return first + (self._growth(self._kinds.get(owner.kind), first) if goes_on else 0)

    def begin(self, owner: Owner, first: int, *, goes_on: bool) -> None:
        """A run has begun with a request."""
        kind = self._kinds.setdefault(owner.kind, _Kind())
        self._kinds.move_to_end(owner.kind)
        kind.begun[owner] = _Begun(first, goes_on)
        if len(self._kinds) > _NUM_KINDS:
            self._forget_oldest()

    def note(self, owner: Owner, tokens: int) -> None:
        """A run that has begun takes so much now, with a request that is admitted."""
        begun = self._kinds[owner.kind].begun[owner]
        begun.peak = max(begun.peak, tokens)
        begun.num_requests += 1

    def end(self, owner: Owner) -> None:
        """A run has ended, whether it had begun or not."""
        kind = self._kinds.get(owner.kind)
        begun = kind.begun.pop(owner, None) if kind is not None else None
        if kind is not None and begun is not None:
            kind.grown.append(begun.growth)

    @property
    def reserved(self) -> int:
        """What all runs under way will take."""
        return sum(
            max(begun.peak, begun.first + (self._growth(kind, begun.first) if begun.goes_on else 0))
            for kind in self._kinds.values()
            for begun in kind.begun.values()
        )

    def _growth(self, kind: _Kind | None, first: int) -> int:
        if kind is not None and kind.grown:
            return max(kind.grown)
        under_way = () if kind is None else kind.begun.values()
        return max((_foreseen(begun) for begun in under_way if begun.num_requests > 1), default=_UNKNOWN_GROWTH * first)

    def _forget_oldest(self) -> None:
        idle: Iterable[Hashable] = (name for name, kind in self._kinds.items() if not kind.begun)
        oldest = next(iter(idle), None)
        if oldest is not None:
            del self._kinds[oldest]


def _foreseen(begun: _Begun) -> int:
    return begun.growth + begun.peak * _UNKNOWN_GROWTH // begun.num_requests
