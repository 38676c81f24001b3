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

if TYPE_CHECKING:
    from .radix import Mark, Node, Order, RadixTree

_numbers = itertools.count(1)
_telling = threading.Lock()


class Owner:
    """A run as engines know it. order: runs that began earlier have smaller ones, and go on first."""

    __slots__ = ("_tell", "is_over", "order")

    def __init__(self) -> None:
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
    when nobody knows.
    """

    owner: Owner
    line: tuple[tuple[int, ...], int] | None
    keep: bool | None

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

    def distance(self, use: Use | None) -> int:
        """How new a request is: 0 if it follows one of its line, 1 if its run has begun, else 2."""
        if use is None or use.owner not in self._lines:
            return 2
        return 0 if use.line in self._lines[use.owner] else 1

    def begin(self, use: Use) -> None:
        """A request is admitted: what its line was expected to use is in use now."""
        owner = use.owner
        if owner.is_over:
            return
        if owner not in self._lines:
            self._lines[owner] = {}
            owner.when_over(lambda: self._later(lambda: self.forget(owner)))
        known = self._lines[owner].get(use.line)
        if known is not None and known[0] is not use:
            self._drop(owner, use.line)

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

    def check(self) -> None:
        """Raises AssertionError when a run that has ended is still known."""
        assert not any(owner.is_over for owner in self._lines), "marks of a run that has ended are left"

    def _drop(self, owner: Owner, line: Hashable) -> None:
        _, marks = self._lines[owner].pop(line)
        for mark in marks:
            self._tree.unmark(mark)
