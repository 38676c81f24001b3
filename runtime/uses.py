"""What programs will use again: an engine keeps the end of a generation from which its run will go on.

A run's requests carry a Use. When one ends from which the run goes on, its end is marked in the prefix tree as
expected; the mark is dropped when the next request of the same line is admitted, and all of a run's when it ends. Marks
decide only what is evicted first. That evicting by next use beats recency for agents is SAGA's finding (arXiv
2605.00528); here the program says what comes next, where SAGA has to predict it.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from .footprints import Footprints
from .radix import prefix_len

if TYPE_CHECKING:
    from .radix import Mark, Node, Order, RadixTree

_numbers = itertools.count(1)
_telling = threading.Lock()


class Owner:
    """A run as engines know it. order: runs that began earlier have smaller ones, and go on first.

    kind: what runs of one program have in common. batch: what those of one batch have.
    """

    __slots__ = ("_tell", "batch", "is_over", "kind", "order")

    def __init__(self, kind: Hashable = None, batch: object = None) -> None:
        self.kind = kind
        self.batch = batch
        self.order = next(_numbers)
        self.is_over = False
        self._tell: list[Callable[[], object]] = []

    def when_over(self, tell: Callable[[], object]) -> None:
        """Call this when the run has ended; at once if it has. Thread-safe."""
        with _telling:
            if not self.is_over:
                self._tell.append(tell)
                return
        tell()

    def end(self) -> None:
        """The run has ended: nothing is expected of it any more. Thread-safe."""
        with _telling:
            self.is_over = True
            listeners, self._tell = self._tell, []
        for tell in listeners:
            tell()


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """What a request means to its run.

    line: the path of forks it is on, and which of several samples it is. The requests of a line follow each other, each
    beginning where the last one ended. None is of no line. keep: whether the run goes on from where this one ends; None
    when nobody knows. plan: whether the request is planned with those that come at the same time; None leaves that to
    the engine, which then plans as far as no run is held back.
    """

    owner: Owner
    line: tuple[tuple[int, ...], int] | None
    keep: bool | None
    plan: bool | None = None

    @property
    def order(self) -> Order:
        """Earlier runs go on first, in them the earlier branches, and then what they branch from."""
        branch, sample = self.line or ((), 0)
        return (self.owner.order, *branch, inf, sample)


class Expectations:
    """The marks in one tree, by run and line. Not thread-safe: the engine's thread owns it.

    later: has a command carried out on that thread.
    """

    def __init__(self, tree: RadixTree, later: Callable[[Callable[[], None]], object]) -> None:
        self._tree = tree
        self._later = later
        self._lines: dict[Owner, dict[Hashable, tuple[Use, list[Mark]]]] = {}
        self._footprints = Footprints()
        self._shared: dict[Owner, int] = {}
        self._served: dict[Owner, int] = {}

    @property
    def reserved(self) -> int:
        """Tokens of KV that the runs which have begun will take."""
        return self._footprints.reserved

    def expected(self, use: Use, first: int) -> int:
        """What the run of a use will take whose first request takes so many tokens of its own."""
        return self._footprints.expected(use.owner, first, goes_on=use.keep is not False)

    def has_begun(self, owner: Owner) -> bool:
        """Whether a request of a run that has not ended was admitted."""
        return owner in self._lines

    def serve(self, owner: Owner, num_tokens: int) -> None:
        """So many tokens were computed for a run."""
        if owner in self._lines:
            self._served[owner] = self._served.get(owner, 0) + num_tokens

    def served(self, owner: Owner) -> int:
        """How many tokens were computed for a run that has not ended."""
        return self._served.get(owner, 0)

    def begin(self, use: Use, node: Node | None = None, room: int = 0) -> None:
        """A request is admitted: what its line was expected to use is in use now.

        node: where its cached prefix ends. room: tokens of KV that it takes besides.
        """
        owner = use.owner
        if owner.is_over:
            return
        if owner not in self._lines:
            self._lines[owner] = {}
            self._shared[owner] = prefix_len(node)
            self._footprints.begin(owner, room, goes_on=use.keep is not False)
            owner.when_over(lambda: self._later(lambda: self.forget(owner)))
        known = self._lines[owner].get(use.line)
        if known is not None and known[0] is not use:
            self._drop(owner, use.line)
        self._footprints.note(owner, self._kept(owner, node) + room)

    def _kept(self, owner: Owner, node: Node | None) -> int:
        """Tokens of what a run is expected to use, and of the prefix that ends at a node, less what it shares."""
        marks = (mark.node for _, marks in self._lines[owner].values() for mark in marks)
        nodes = {step for end in (node, *marks) if end is not None for step in end.path()}
        shared = self._shared[owner]
        return sum(max(0, step.end - max(step.start, shared)) for step in nodes)

    def end(self, use: Use, node: Node | None) -> None:
        """A request has ended at a node, from which its run goes on if the use says so."""
        lines = self._lines.get(use.owner)
        if not use.keep or node is None or lines is None or use.owner.is_over:
            return
        if use.line in lines and lines[use.line][0] is not use:
            self._drop(use.owner, use.line)
        _, marks = lines.setdefault(use.line, (use, []))
        marks.append(self._tree.mark(node, use.order))

    def forget(self, owner: Owner) -> None:
        """A run has ended."""
        for line in list(self._lines.get(owner, ())):
            self._drop(owner, line)
        self._lines.pop(owner, None)
        self._shared.pop(owner, None)
        self._served.pop(owner, None)
        self._footprints.end(owner)

    def check(self) -> None:
        """Raises AssertionError when a run that has ended is still known."""
        assert not any(owner.is_over for owner in self._lines), "marks of a run that has ended are left"

    def _drop(self, owner: Owner, line: Hashable) -> None:
        _, marks = self._lines[owner].pop(line)
        for mark in marks:
            self._tree.unmark(mark)
