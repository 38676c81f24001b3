"""The order of the parts of an unordered group: what many rows of a batch share comes first and is computed once.

Greedy group recursion after arXiv 2403.05821, on sets of texts instead of the fields of a table: the text that saves
most goes first in all rows that have it; among those rows, and among the others, the same again. Constants of the
program that all of the rows have go before anything else: that costs them nothing, and other batches share them. The
decisions are kept as a tree, so that rows that come later fall in with those before them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nlargest

from .loop import loop
from .pending import Pending

# In how few rows the best text to begin with is looked for by trying, and how many are tried.
_FEW_ROWS = 64
_NUM_TRIED = 6
# Rows that come within this time of one another are decided on together.
_CALM_SECONDS = 0.005


@dataclass(slots=True, eq=False)
class _Row:
    """A row's texts, the indexes of those that have no place yet, and the order so far."""

    texts: Sequence[str]
    left: list[int]
    order: list[int] = field(default_factory=list)

    def unplaced(self) -> frozenset[str]:
        """The texts that have no place yet."""
        return frozenset(self.texts[index] for index in self.left)

    def place(self, text: str) -> bool:
        """Put a text next, if the row has it."""
        for index in self.left:
            if self.texts[index] == text:
                self.left.remove(index)
                self.order.append(index)
                return True
        return False


@dataclass(slots=True)
class Decisions:
    """Which texts come first, in the order they were chosen, each with the decisions for the rows that have it.

    constants: the program's own texts, in its order.
    """

    constants: Sequence[str] = ()
    chosen: list[tuple[str, Decisions]] = field(default_factory=list)

    def arrange(self, texts: Sequence[Sequence[str]]) -> list[list[int]]:
        """For each row the order of its parts, as indexes; parts that no other row has stay as written, at the end."""
        rows = [_Row(row, list(range(len(row)))) for row in texts]
        self._arrange(rows)
        return [row.order + row.left for row in rows]

    def _arrange(self, rows: list[_Row]) -> None:
        for text, inner in self.chosen:
            having = [row for row in rows if row.place(text)]
            if having:
                inner._arrange(having)
                placed = set(map(id, having))
                rows = [row for row in rows if id(row) not in placed]
        if len(rows) > 1:
            self._decide(rows)

    def _decide(self, rows: list[_Row]) -> None:
        """Choose what comes first in rows about which nothing was decided."""
        texts = {row: row.unplaced() for row in rows}
        holders: dict[str, list[_Row]] = {}
        for row, mine in texts.items():
            for text in mine:
                holders.setdefault(text, []).append(row)
        counts = Counter({text: len(having) for text, having in holders.items()})
        while (first := self._constant(counts, len(texts)) or _best_first(counts, texts)) is not None:
            inner = Decisions(self.constants)
            self.chosen.append((first, inner))
            having = [row for row in holders[first] if row in texts]
            for row in having:
                counts.subtract(texts.pop(row))
                row.place(first)
            inner._arrange(having)

    def _constant(self, counts: Counter[str], num_rows: int) -> str | None:
        """The first constant that all rows have, if there are several rows."""
        return next((text for text in self.constants if counts[text] == num_rows > 1), None)


def _best_first(counts: Counter[str], texts: dict[_Row, frozenset[str]]) -> str | None:
    """The text that should come first in the rows that have it; None when no two rows share one.

    In small sets of rows the likeliest few are tried out, by what would be saved in all.
    """
    likely = _likely(counts, 1 if len(texts) > _FEW_ROWS else _NUM_TRIED)
    if len(likely) < 2:
        return likely[0] if likely else None
    return max(likely, key=lambda text: _saved_with(text, list(texts.values())))


def _saved_with(text: str, rows: list[frozenset[str]]) -> int:
    """What is saved when a text comes first in all rows that have it, and then always what saves most."""
    having = [row - {text} for row in rows if text in row]
    others = [row for row in rows if text not in row]
    return (len(having) - 1) * len(text) + _saved(having) + _saved(others)


def _saved(rows: list[frozenset[str]]) -> int:
    likely = _likely(Counter(text for row in rows for text in row), 1)
    return _saved_with(likely[0], rows) if likely else 0


def _likely(counts: Counter[str], number: int) -> list[str]:
    """The texts that save most if all rows that have them begin with them, the best first."""
    shared = [text for text, count in counts.items() if count > 1]
    return nlargest(number, shared, key=lambda text: ((counts[text] - 1) * len(text), text))


class Arranger:
    """Arranges the groups of a batch's rows. Rows that come soon after one another are decided on together.

    decides_by_itself: whether that happens in time; otherwise rows wait for `decide`.
    """

    def __init__(self, decides_by_itself: bool = True) -> None:
        self._decides_by_itself = decides_by_itself
        self._decisions: dict[object, Decisions] = {}
        self._waiting: list[tuple[object, Sequence[str], Pending[list[int]]]] = []

    def arrange(self, group: object, parts: Sequence[str], constants: Sequence[str] = ()) -> Pending[list[int]]:
        """The order of a row's parts in a group of the program, which has these constants. On the loop thread."""
        self._decisions.setdefault(group, Decisions(constants))
        order: Pending[list[int]] = Pending()
        self._waiting.append((group, parts, order))
        if self._decides_by_itself and len(self._waiting) == 1:
            self._decide_when_calm(0)
        return order

    def _decide_when_calm(self, num_seen: int) -> None:
        """Decide once no more rows have come for a while."""
        if len(self._waiting) > num_seen:
            loop().later(_CALM_SECONDS, self._decide_when_calm, len(self._waiting))
        else:
            self.decide()

    def decide(self) -> bool:
        """Decide on all rows that wait; whether there were any. On the loop thread."""
        waiting, self._waiting = self._waiting, []
        for group in dict.fromkeys(group for group, _, _ in waiting):
            mine = [(parts, order) for other, parts, order in waiting if other == group]
            for (_, order), indexes in zip(
                mine, self._decisions[group].arrange([parts for parts, _ in mine]), strict=True
            ):
                order.set_result(indexes)
        return bool(waiting)
