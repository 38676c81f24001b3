"""Steps from static buffers: what pads changes nothing, and what does not fit is computed otherwise.

The graph of a GPU is replaced by one that computes again from the same buffers into the same memory.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from ramify.runtime.attention.items import Cutter
from ramify.runtime.attention.tables import Table, meetings, row_targets
from ramify.runtime.batch import Batch, Read, Write
from ramify.runtime.models.replay import MOST_ROWS, Bucket, Computation, DecodeReplays, bucket_of
from ramify.runtime.pool import Extent, KVLayout, KVPool
from torch import Tensor

LAYOUT = KVLayout(2, 2, 4, torch.float32, torch.device("cpu"))
CUTTER = Cutter(2, 2, 5)


class Again:
    """As a graph does, gives its result in the same memory every time. num_captures: how many there are."""

    def __init__(self) -> None:
        self.num_captures = 0

    def __call__(self, computation: Computation) -> Computation:
        self.num_captures += 1
        result = computation()
        return lambda: result.copy_(computation())


class Model:
    """Computes from the tables alone what each row is: its token, its position, and which keys it sees."""

    def __init__(self, capture: Again, **options: int) -> None:
        self.pool = KVPool(LAYOUT, 100_000)
        self.shared = self.pool.allocate(300)
        self.replays = DecodeReplays(LAYOUT, plan, self.compute, capture, **options)
        self.computed: list[tuple[dict[str, tuple[int, ...]], int]] = []

    def compute(self, tables: Mapping[str, Tensor], num_slots: int) -> Tensor:
        self.computed.append(({name: tuple(table.shape) for name, table in tables.items()}, num_slots))
        keys = torch.zeros(len(tables["token_ids"]))
        for kind in ("narrow", "wide"):
            for _, _, _, count, _, entry, num_rows in tables[kind].tolist():
                rows = tables["entries"][entry : entry + num_rows, 0]
                keys.index_add_(0, rows, torch.full((num_rows,), float(count)))
        parts = tables["begins"].diff()
        return torch.stack([tables["token_ids"], tables["positions"], keys, parts, tables["targets"][:, 1]], 1)

    def batch(self, num_rows: int, tail: int = 5, *, logit_rows: Tensor | None = None) -> tuple[Batch, list[Extent]]:
        """Sequences that decode below a shared node."""
        tails = [self.pool.allocate(tail + row) for row in range(num_rows)]
        reads = [Read(self.shared, 300, [(0, num_rows)], False)]
        reads += [Read(extent, tail + row, [(row, row + 1)], True) for row, extent in enumerate(tails)]
        writes = [Write(extent, tail + row - 1, row, row + 1) for row, extent in enumerate(tails)]
        positions = torch.arange(num_rows) + 300 + tail - 1
        rows = torch.arange(num_rows) if logit_rows is None else logit_rows
        return Batch(positions % 97, positions, writes, reads, rows), tails


def plan(batch: Batch) -> dict[str, Table]:
    num_rows = batch.token_ids.numel()
    items = CUTTER.cut(*meetings(batch.reads), num_rows)
    return {"targets": row_targets(batch.writes, num_rows), **items._asdict()}


def run(model: Model, num_rows: int, tail: int = 5) -> Tensor | None:
    batch, tails = model.batch(num_rows, tail)
    result = model.replays.try_run(batch)
    if result is not None:
        begins = plan(batch)["begins"]
        keys = [extent.data.stride(2) for extent in tails]
        wanted = [batch.token_ids, batch.positions, batch.positions + 1, np.diff(begins), keys]
        assert result.tolist() == torch.stack([torch.as_tensor(each).float() for each in wanted], 1).tolist()
    for extent in tails:
        model.pool.release(extent)
    return result


def test_padded_steps_are_those_of_the_batch() -> None:
    capture = Again()
    model = Model(capture, times_before=0)
    for num_rows in (1, 2, 3, 4, 3, 7, 9, 30, 4, 1):
        assert run(model, num_rows) is not None
    assert capture.num_captures == len({shapes["token_ids"] for shapes, _ in model.computed}) == 6
    shapes, num_slots = model.computed[-1]
    assert shapes["token_ids"] == (1,) and shapes["begins"] == (2,) and num_slots == shapes["entries"][0] == 256


def test_rows_that_pad_write_where_nobody_reads() -> None:
    model = Model(Again(), times_before=0)
    run(model, 3)
    (replay,) = model.replays._replays.values()
    targets = replay.buffer.tables["targets"]
    assert targets[3:].tolist() == [[model.replays._nowhere.data_ptr(), 4]]


def test_a_bucket_has_to_come_up_before_it_gets_a_graph() -> None:
    capture = Again()
    model = Model(capture, times_before=2)
    assert [run(model, 5) is None for _ in range(5)] == [True, True, False, False, False]
    assert capture.num_captures == 1


def test_what_no_graph_is_for() -> None:
    model = Model(Again(), times_before=0)
    assert run(model, MOST_ROWS + 1) is None
    for logit_rows in ([0, 2], [2, 1, 0], []):
        assert model.replays.try_run(model.batch(3, logit_rows=torch.tensor(logit_rows))[0]) is None
    assert not model.computed


def test_tokens_that_are_on_the_device_already() -> None:
    """Where they are copied from there; a `meta` tensor would be found out, so one of another class stands for them."""
    model = Model(Again(), times_before=0)
    batch, _ = model.batch(3)

    class Elsewhere(Tensor):
        @property
        def device(self) -> torch.device:
            return torch.device("cuda")

    moved = Batch(batch.token_ids.as_subclass(Elsewhere), batch.positions, batch.writes, batch.reads, batch.logit_rows)
    result = model.replays.try_run(moved)
    assert result is not None and result[:, 0].tolist() == batch.token_ids.tolist()


def test_after_a_failure_no_graph_is_made_and_those_there_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Again):
        def __call__(self, computation: Computation) -> Computation:
            if self.num_captures:
                self.num_captures += 1
                raise RuntimeError("operation not permitted when stream is capturing")
            return super().__call__(computation)

    capture = Failing()
    model = Model(capture, times_before=0)
    with caplog.at_level(logging.WARNING):
        assert run(model, 2) is not None
        assert run(model, 4) is None and run(model, 8) is None
    assert capture.num_captures == 2
    assert "without CUDA graphs" in caplog.text and "not permitted" in caplog.text
    assert run(model, 2) is not None


@pytest.mark.parametrize(
    ("rows", "sizes", "bucket"),
    [
        (1, (1, 0, 1), Bucket(1, 16, 0, 256)),
        (3, (17, 1, 257), Bucket(4, 32, 16, 1024)),
        (8, (64, 0, 64), Bucket(8, 64, 0, 256)),
        (9, (100, 64, 2048), Bucket(16, 128, 64, 4096)),
        (256, (256, 40, 16384), Bucket(256, 256, 64, 16384)),
        (256, (256, 40, 16385), None),
        (257, (257, 0, 257), None),
    ],
)
def test_buckets(rows: int, sizes: tuple[int, int, int], bucket: Bucket | None) -> None:
    names = zip(("narrow", "wide", "entries"), sizes, strict=True)
    tables = {"targets": np.zeros((rows, 2), np.int64)} | {name: np.zeros((size, 7), np.int64) for name, size in names}
    assert bucket_of(tables) == bucket
