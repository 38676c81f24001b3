"""One step's work for the model: tokens, where their KV goes and which KV they attend to.

The scheduler makes a Batch, the model's forward reads it. A batch's rows are its tokens, in any number of sequences;
`reads` say for every node of the prefix tree which rows attend to it, so that a prefix shared by many branches is
read once for all of them. A row attends to exactly what its reads cover: the KV of every token before it and its own
(which a Write of the same batch puts in place before that layer's attention).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, TypeVar, overload

from torch import Tensor

from .pool import Extent

T = TypeVar("T")


class Write(NamedTuple):
    """The rows [start, stop) put their keys and values at extent[offset : offset + stop - start)."""

    extent: Extent
    offset: int
    start: int
    stop: int


class Read(NamedTuple):
    """The query rows in `rows`, a list of row ranges (start, stop), attend to extent[0:length).

    causal=False: every row sees all `length` tokens. causal=True: there is exactly one row range, and its rows are the
    last (stop - start) of the `length` tokens: row start + i sees extent[0 : length - (stop - start) + i + 1).
    start: the position of the extent's first token, which only attention through sliding windows has to know.
    """

    extent: Extent
    length: int
    rows: list[tuple[int, int]]
    causal: bool
    start: int | None = None


class Later(Sequence[T]):
    """Items that are made when somebody looks at them."""

    def __init__(self, make: Callable[[], list[T]]) -> None:
        self._make = make

    @cached_property
    def _items(self) -> list[T]:
        return self._make()

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._items[index]

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)


class Series:
    """What batches have in common of which each goes on by one token in each row from the one before.

    They have the same extents at the same places. The last reads of each, one a row in their order, are of what the row
    itself has generated; they and the writes are one token further on in each batch, and all other reads are the same.
    """


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to run through the model in one forward pass.

    token_ids and positions: int64 (n,), position 0 is a sequence's first token. logit_rows: int64 (m,), the rows whose
    logits, or hidden states, are wanted. Tensors may be on any device; the model moves them to its own. The order of
    the reads changes no result; from the root down, merging is fastest. series: what it goes on with, if anything;
    turn: how many tokens after the first batch of that. adapters: the row ranges of those that are to have one.
    """

    token_ids: Tensor
    positions: Tensor
    writes: Sequence[Write]
    reads: Sequence[Read]
    logit_rows: Tensor
    series: Series | None = None
    turn: int = 0
    adapters: Mapping[str, list[tuple[int, int]]] = field(default_factory=dict)

    def check(self) -> None:
        """Raises AssertionError when a row or a token is out of range, or a row's KV is not all covered."""
        num_rows = self.token_ids.numel()
        assert self.positions.numel() == num_rows, f"{num_rows} tokens and {self.positions.numel()} positions"
        seen = [0] * num_rows
        for read in self.reads:
            _check_read(read, num_rows)
            for row, count in _visible(read):
                seen[row] += count
        for row, (count, position) in enumerate(zip(seen, self.positions.tolist(), strict=True)):
            assert count == position + 1, f"row {row} at position {position} sees {count} tokens"
        written = sorted(row for write in self.writes for row in range(write.start, write.stop))
        assert written == list(range(num_rows)), "the writes do not cover every row exactly once"
        for write in self.writes:
            end = write.offset + write.stop - write.start
            assert write.offset >= 0 and end <= write.extent.room, f"a write ends at {end} of {write.extent.room}"
        assert all(0 <= row < num_rows for row in self.logit_rows.tolist()), "a logit row is out of range"


def _check_read(read: Read, num_rows: int) -> None:
    assert 0 < read.length <= read.extent.room, f"a read of {read.length} tokens of {read.extent.room}"
    assert read.rows and all(0 <= start < stop <= num_rows for start, stop in read.rows), f"rows {read.rows}"
    if read.causal:
        assert len(read.rows) == 1, "a causal read has one row range"
        start, stop = read.rows[0]
        assert stop - start <= read.length, "a causal read has more rows than tokens"


def _visible(read: Read) -> list[tuple[int, int]]:
    """(row, number of tokens the row sees) for every row of the read."""
    if not read.causal:
        return [(row, read.length) for start, stop in read.rows for row in range(start, stop)]
    ((start, stop),) = read.rows
    return [(row, read.length - (stop - start) + row - start + 1) for row in range(start, stop)]
