"""Steps that only decode, from static buffers, so that a GPU can replay what it was told once (CUDA graphs).

Launching a step's kernels one by one takes the host longer than the device needs for them with few rows. A step whose
rows all want logits is padded to a bucket, a number of rows and of items of attention, and computed by the graph of
that bucket: the host only copies the step's tables. What pads is without effect: items without rows, and rows whose KV
goes to a place that nobody reads. Graphs are made when their bucket has come up some times, and share their memory.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..attention.table_buffer import TableBuffer
from ..attention.tables import Table
from ..batch import Batch
from ..pool import KVLayout

_log = logging.getLogger(__name__)
# More rows than these keep the device busy for longer than launching takes.
MOST_ROWS = 256
# Of a table, how many entries it has in the least bucket, and how much larger the next bucket is. An item that pads
# costs a little of the device's time, an entry only the memory for a part of a row.
_SIZES = {"narrow": (16, 2), "wide": (16, 2), "entries": (256, 4)}
_MOST_ENTRIES = 16384
# To make a graph takes as long as some dozens of steps lose without it, so a bucket has to come up before.
_TIMES_BEFORE = 8

Computation: TypeAlias = Callable[[], Tensor]
# Carries a computation on static buffers out and returns what does so again, its result in the same memory every time.
Capture: TypeAlias = Callable[[Computation], Computation]


class Bucket(NamedTuple):
    """The sizes of a step's tables (attention/items.py)."""

    rows: int
    narrow: int
    wide: int
    entries: int

    def shapes(self, tables: Mapping[str, Table]) -> dict[str, tuple[int, ...]]:
        """Those of the tables of a batch, where they have the bucket's sizes."""
        sizes = {"targets": self.rows, "begins": self.rows + 1} | {name: getattr(self, name) for name in _SIZES}
        return {name: (sizes[name], *table.shape[1:]) for name, table in tables.items()}


def bucket_of(tables: Mapping[str, Table]) -> Bucket | None:
    """The least bucket for a step's tables; None where they are too large for any."""
    num_rows = len(tables["targets"])
    if num_rows > MOST_ROWS or len(tables["entries"]) > _MOST_ENTRIES:
        return None
    rows = 1 << (num_rows - 1).bit_length() if num_rows <= 8 else -(-num_rows // 8) * 8
    return Bucket(rows, *(_rounded(len(tables[name]), *sizes) for name, sizes in _SIZES.items()))


def _rounded(count: int, least: int, factor: int) -> int:
    """The first of least, least * factor, ... that is enough; 0 stays 0."""
    size = least if count else 0
    while size < count:
        size *= factor
    return size


class _Replay(NamedTuple):
    buffer: TableBuffer
    run: Computation


class DecodeReplays:
    """The graphs of one model.

    plan: the tables of a batch, int64 and by name (attention/items.py). compute: from these, and `token_ids` and
    `positions` (rows,), on the device, and a number of parts to make room for, the hidden states of all rows; all that
    depends on the batch must come out of the tables. times_before: how often a bucket comes up before it has a graph.
    """

    def __init__(
        self,
        layout: KVLayout,
        plan: Callable[[Batch], dict[str, Table]],
        compute: Callable[[Mapping[str, Tensor], int], Tensor],
        capture: Capture,
        *,
        times_before: int = _TIMES_BEFORE,
    ) -> None:
        self._plan, self._compute, self._capture = plan, compute, capture
        self._device = layout.device
        self._nowhere = layout.empty(1)
        self._replays: dict[Bucket, _Replay] = {}
        self._times_before = times_before
        self._times: Counter[Bucket] = Counter()
        self._can_capture = True

    def try_run(self, batch: Batch) -> Tensor | None:
        """The hidden states of all rows, (n, hidden_size), which hold until the next call; None for a batch that no
        bucket fits, or that not all rows of want logits.
        """
        num_rows = batch.token_ids.numel()
        if num_rows > MOST_ROWS or batch.logit_rows.numel() != num_rows or not is_in_order(batch.logit_rows):
            return None
        if not (self._replays or self._can_capture):
            return None
        tables = self._plan(batch)
        bucket = bucket_of(tables)
        if bucket is None or not (bucket in self._replays or self._is_due(bucket)):
            return None
        replay = self._replays.get(bucket)
        buffer = self._new_buffer(bucket, tables) if replay is None else replay.buffer
        self._fill(buffer, bucket, tables, batch)
        if replay is None:
            replay = self._try_capture(bucket, buffer)
        return None if replay is None else replay.run()[:num_rows]

    def _is_due(self, bucket: Bucket) -> bool:
        """Counts how often a bucket without a graph comes up; whether it may have one now."""
        self._times[bucket] += 1
        return self._can_capture and self._times[bucket] > self._times_before

    def _new_buffer(self, bucket: Bucket, tables: Mapping[str, Table]) -> TableBuffer:
        inputs = {"token_ids": (bucket.rows,), "positions": (bucket.rows,)}
        return TableBuffer(inputs | bucket.shapes(tables), self._device)

    def _fill(self, buffer: TableBuffer, bucket: Bucket, tables: dict[str, Table], batch: Batch) -> None:
        num_rows = batch.token_ids.numel()
        padding = bucket.rows - num_rows
        place = np.array([[self._nowhere.data_ptr(), self._nowhere.stride(2)]], np.int64)
        padded = tables | {
            "targets": np.concatenate([tables["targets"], place.repeat(padding, 0)]),
            "begins": np.pad(tables["begins"], (0, padding), "edge"),
        }
        inputs = {"token_ids": batch.token_ids, "positions": batch.positions}
        on_host = {name: numbers.numpy() for name, numbers in inputs.items() if numbers.device.type == "cpu"}
        buffer.fill(padded | on_host)
        for name in inputs.keys() - on_host.keys():
            buffer.tables[name][:num_rows].copy_(inputs[name])

    def _try_capture(self, bucket: Bucket, buffer: TableBuffer) -> _Replay | None:
        """Makes the graph of a bucket; after one that could not be made, no others are tried."""
        try:
            run = self._capture(lambda: self._compute(buffer.tables, bucket.entries))
        except Exception as error:
            self._can_capture = False
            _log.warning("steps are computed without CUDA graphs from here on, so decoding is slower: %s", error)
            return None
        self._replays[bucket] = _Replay(buffer, run)
        return self._replays[bucket]


class CudaCapture:
    """CUDA graphs of one device, whose memory is shared: what one leaves is gone when another runs."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, computation: Computation) -> Computation:
        """See Capture."""
        # Once without a graph, because what is compiled or allocated on first use cannot be in one.
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            computation()
        torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile, as a copy of KV does.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            result = computation()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


def is_in_order(logit_rows: Tensor) -> bool:
    """Whether these rows are 0, 1, 2 and so on; to be told without waiting for a device."""
    return logit_rows.device.type == "cpu" and bool((logit_rows.numpy() == np.arange(logit_rows.numel())).all())
