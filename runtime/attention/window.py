"""Sliding windows: which keys of a read the rows still see, where each sees only so many tokens before its own.

A row at position p with a window of w tokens sees the positions p - w + 1 up to p (as in Mistral, arXiv 2310.06825,
section 2). Keys that no row sees are not read at all; where some rows see more than others, a mask hides the rest. The
cache keeps all keys, since another sequence may go on from anywhere in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..batch import Read

RowRanges = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is left of a part of a read: keys [start, start + length) of its extent, for these rows.

    first: for each of the rows, the first of these keys that it sees, where they differ or `causal` goes with it.
    """

    start: int
    length: int
    rows: RowRanges
    causal: bool
    first: tuple[int, ...] | None = None

    def mask(self, group: int, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """What is added to the scores, (rows * group, length): 0, or -inf where a row does not see a key."""
        if self.first is None:
            return None
        key = torch.arange(self.length)
        hidden = key < torch.tensor(self.first)[:, None]
        if self.causal:
            hidden |= key > key[:, None]
        mask = torch.where(hidden, float("-inf"), 0.0).to(dtype).repeat_interleave(group, 0)
        return mask.to(device)


def row_positions(reads: Sequence[Read], num_rows: int) -> list[int]:
    """The position of each row's token, on the host: a row sees itself last."""
    positions = [0] * num_rows
    for read in reads:
        end = _start(read) + read.length
        for start, stop in read.rows:
            for row in range(start, stop):
                positions[row] = max(positions[row], end - stop + row if read.causal else end - 1)
    return positions


def seen_through(window: int, read: Read, part: Seen, positions: list[int]) -> Seen | None:
    """What the rows see of a part of a read through the window; None for nothing. part: without a window."""
    begin = _start(read) + part.start
    ranges: RowRanges = []
    first: list[int] = []
    for row in (row for start, stop in part.rows for row in range(start, stop)):
        hidden = max(0, positions[row] - window + 1 - begin)
        if hidden >= part.length:
            continue
        first.append(hidden)
        if ranges and ranges[-1][1] == row:
            ranges[-1] = (ranges[-1][0], row + 1)
        else:
            ranges.append((row, row + 1))
    if not first:
        return None
    if max(first) == 0:
        return part if ranges == part.rows else Seen(part.start, part.length, ranges, part.causal)
    cut = min(first)
    kept = tuple(hidden - cut for hidden in first)
    is_same = not any(kept)
    return Seen(part.start + cut, part.length - cut, ranges, part.causal, None if is_same else kept)


def _start(read: Read) -> int:
    assert read.start is not None, "a sliding window has to know where an extent's tokens stand"
    return read.start
