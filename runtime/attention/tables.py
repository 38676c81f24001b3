"""One step's meeting with the KV cache as tables of addresses, for kernels of any device.

Every read of a node is a *meeting* of query rows with its keys. Rows with several meetings have a part of their result
from each, merged by their log-sum-exps; a part lies in a *slot*. A storage is contiguous, (num_layers, 2, num_kv_heads,
room, head_dim), so the address of the first key of a node in the first head of the first layer, and how far heads are
apart, lead to all of its keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..batch import Read, Write

Table = NDArray[np.int64]


def row_targets(writes: Sequence[Write], num_rows: int) -> Table:
    """For each row where its keys go in layer 0, an address, and how far heads are apart: int64 (num_rows, 2)."""
    targets = np.empty((num_rows, 2), np.int64)
    for write in writes:
        address, head_stride, token_bytes = write.extent.place
        count = write.stop - write.start
        if count == 1:
            targets[write.start] = address + write.offset * token_bytes, head_stride
            continue
        targets[write.start : write.stop, 0] = address + token_bytes * np.arange(write.offset, write.offset + count)
        targets[write.start : write.stop, 1] = head_stride
    return targets


def meetings(reads: Sequence[Read]) -> tuple[Table, NDArray[np.int32]]:
    """The meetings, int64 (len(reads), 7), and the rows of all of them one after the other, int32.

    A meeting: address of the first key, how far heads are apart, number of keys, whether it is causal, where its rows
    begin among those of all, how many they are, and its first slot, if every row of every meeting has a slot.
    """
    found, rows = [], list[int]()
    for read in reads:
        assert read.length <= read.extent.room, f"a read of {read.length} tokens of {read.extent.room}"
        first = len(rows)
        for start, stop in read.rows:
            rows += range(start, stop)
        address, head_stride, _ = read.extent.place
        found.append((address, head_stride, read.length, read.causal, first, len(rows) - first, first))
    return np.array(found, np.int64), np.array(rows, np.int32)


def part_slots(rows: NDArray[np.integer], num_rows: int) -> tuple[Table, Table]:
    """Where each row's parts lie among those of all meetings: the slots of row i are slots[begin[i] : begin[i + 1]].

    A row with one part has no slots. Parts of a row are in the order of its meetings.
    """
    counts = np.bincount(rows, minlength=num_rows)
    assert counts.all(), "a row of the batch reads nothing, not even itself"
    by_row = np.argsort(rows, kind="stable")
    slots = by_row[counts[rows[by_row]] > 1]
    begin = np.zeros(num_rows + 1, np.int64)
    np.cumsum(np.where(counts > 1, counts, 0), out=begin[1:])
    return begin, np.ascontiguousarray(slots, np.int64)
