"""Attention cut into items: everything that a row sees, once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ramify.runtime.attention.items import NARROW_ROWS, WIDE_ROWS, Cutter, Items
from ramify.runtime.attention.tables import meetings, row_targets
from ramify.runtime.batch import Read
from ramify.runtime.pool import KVLayout, KVPool

from .trees import Tree, random_tree

LAYOUT = KVLayout(2, 2, 4, torch.float32, torch.device("cpu"))


def cut(reads: list[Read], num_rows: int, cutter: Cutter) -> Items:
    return cutter.cut(*meetings(reads), num_rows)


def visible(items: Items) -> dict[int, list[int]]:
    """For each row the addresses of the nodes' first keys plus the numbers of the keys that it sees."""
    seen: dict[int, list[int]] = {}
    for address, _, first, count, sees, entry, num_rows in [*items.narrow.tolist(), *items.wide.tolist()]:
        for i in range(num_rows):
            keys = range(address + first, address + min(first + count, sees + i))
            seen.setdefault(int(items.entries[entry + i, 0]), []).extend(keys)
    return seen


def expected(tree: Tree) -> dict[int, list[int]]:
    return {
        row: [extent.place[0] + i for extent, length in path for i in range(length)]
        for row, path in enumerate(tree.rows)
    }


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    group=st.sampled_from([1, 2, 3, 8, 21]),
    num_processors=st.sampled_from([1, 3, 10_000]),
)
def test_every_row_sees_what_it_should_once(seed: int, group: int, num_processors: int) -> None:
    tree = random_tree(seed, LAYOUT)
    num_rows = len(tree.rows)
    items = cut(tree.batch().reads, num_rows, Cutter(group, 2, num_processors))
    assert {row: sorted(keys) for row, keys in visible(items).items()} == {
        row: sorted(keys) for row, keys in expected(tree).items()
    }
    for kind, table in ((NARROW_ROWS, items.narrow), (WIDE_ROWS, items.wide)):
        assert all(0 < count * group <= max(kind, 32) for count in table[:, 6].tolist())
    check_slots(items, num_rows)


def check_slots(items: Items, num_rows: int) -> None:
    """Rows with one entry have no slot, those with several one each, neighbours, and no slot serves two."""
    rows, slots = items.entries[:, 0], items.entries[:, 1]
    for row in range(num_rows):
        of_row = slots[rows == row].tolist()
        wanted = list(range(items.begins[row], items.begins[row + 1])) or [-1]
        assert sorted(of_row) == wanted
    assert items.num_slots == (slots >= 0).sum()


def chunk(old: int, new: int, **options: Any) -> Items:
    pool = KVPool(LAYOUT, 100_000)
    extent = pool.allocate(old + new)
    return cut([Read(extent, old + new, [(0, new)], True)], new, Cutter(**options))


def test_a_prompt_is_tiles_of_rows_and_what_takes_longest_comes_first() -> None:
    items = chunk(0, 1000, group=4, num_kv_heads=8, num_processors=2)
    assert len(items.narrow) == 0 and items.num_slots == 0
    assert items.wide[:, 6].tolist() == [8] + [32] * 31
    assert items.wide[:, 3].tolist() == [1000, *range(992, 0, -32)]


@pytest.mark.parametrize(("length", "num_items"), [(100, 1), (128, 1), (129, 2), (3000, 24), (100_000, 66)])
def test_one_row_is_cut_as_far_as_it_keeps_the_device_busy(length: int, num_items: int) -> None:
    items = chunk(length - 1, 1, group=4, num_kv_heads=8, num_processors=44)
    assert abs(len(items.narrow) - num_items) <= 1 and len(items.wide) == 0
    assert items.narrow[:, 3].sum() == length and (items.narrow[:, 2] % 64 == 0).all()
    assert items.num_slots == (len(items.narrow) if num_items > 1 else 0)


def test_many_rows_below_a_node_read_it_once() -> None:
    pool = KVPool(LAYOUT, 100_000)
    prefix, tails = pool.allocate(8000), [pool.allocate(20) for _ in range(64)]
    reads = [Read(prefix, 8000, [(0, 64)], False)]
    reads += [Read(tail, 7, [(row, row + 1)], False) for row, tail in enumerate(tails)]
    items = cut(reads, 64, Cutter(4, 8, 44))
    assert len(items.narrow) == 64 and set(items.wide[:, 6].tolist()) == {32}
    assert items.wide[:, 3].sum() == 2 * 8000
    assert (np.diff(items.begins) == len(items.wide) // 2 + 1).all()


def test_targets() -> None:
    tree = random_tree(7, LAYOUT)
    batch = tree.batch()
    targets = row_targets(batch.writes, len(tree.rows))
    for write in batch.writes:
        for row in range(write.start, write.stop):
            place = write.extent.keys(0)[0, write.offset + row - write.start]
            assert targets[row].tolist() == [place.data_ptr(), write.extent.data.stride(2)]
