"""The KV pool against a model that is a list of (storage, start, tokens)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ramify.runtime.batch import Batch, Read, Write
from ramify.runtime.pool import Extent, KVLayout, KVPool, PoolExhausted

LAYOUT = KVLayout(2, 2, 4, torch.float32, torch.device("cpu"))
CAPACITY = 24


class _Slab:
    """What the model knows of a storage: its size, and how many extents share it."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.shares = 1


class PoolMachine(RuleBasedStateMachine):
    """Every token of every extent carries its own number, so a wrong view or a lost copy shows."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = KVPool(LAYOUT, CAPACITY)
        self.live: list[tuple[Extent, list[int], _Slab]] = []
        self.number = 0

    def _pick(self, choice: int) -> tuple[Extent, list[int], _Slab]:
        return self.live.pop(choice % len(self.live))

    @rule(room=st.integers(1, 12))
    def allocate(self, room: int) -> None:
        if room > self.pool.free:
            assert not self.pool.can_allocate(room)
            with pytest.raises(PoolExhausted, match=f"{room} tokens"):
                self.pool.allocate(room)
            return
        assert self.pool.can_allocate(room)
        extent = self.pool.allocate(room)
        numbers = list(range(self.number, self.number + room))
        self.number += room
        for layer in range(LAYOUT.num_layers):
            extent.keys(layer).copy_(torch.tensor(numbers)[None, :, None] + layer)
            extent.values(layer).copy_(torch.tensor(numbers)[None, :, None] - layer)
        self.live.append((extent, numbers, _Slab(room)))

    @precondition(lambda self: any(extent.room > 1 for extent, _, _ in self.live))
    @rule(choice=st.integers(0, 99), at=st.integers(0, 99))
    def split(self, choice: int, at: int) -> None:
        wide = [i for i, (extent, _, _) in enumerate(self.live) if extent.room > 1]
        extent, numbers, slab = self._pick(wide[choice % len(wide)])
        at = 1 + at % (extent.room - 1)
        address = extent.keys(1).data_ptr()
        head, tail = self.pool.split(extent, at)
        assert head.keys(1).data_ptr() == address
        slab.shares += 1
        self.live += [(head, numbers[:at], slab), (tail, numbers[at:], slab)]

    @precondition(lambda self: self.live)
    @rule(choice=st.integers(0, 99), length=st.integers(0, 99))
    def trim(self, choice: int, length: int) -> None:
        extent, numbers, slab = self._pick(choice)
        length = 1 + length % extent.room
        trimmed = self.pool.trim(extent, length)
        assert trimmed.room == length
        if slab.shares == 1:
            slab = _Slab(length)
        self.live.append((trimmed, numbers[:length], slab))

    @precondition(lambda self: self.live)
    @rule(choice=st.integers(0, 99))
    def release(self, choice: int) -> None:
        extent, _, slab = self._pick(choice)
        slab.shares -= 1
        assert self.pool.release(extent) == (0 if slab.shares else slab.room)
        with pytest.raises(AssertionError, match="already released"):
            self.pool.release(extent)

    @rule(num_tokens=st.integers(1, 12))
    def compact(self, num_tokens: int) -> None:
        wasted = self.pool.wasted
        assert min(num_tokens, wasted) <= self.pool.compact(num_tokens) <= wasted
        for extent, _, slab in self.live:
            assert extent._storage is not None
            slab.room = extent._storage.room

    @invariant()
    def accounting(self) -> None:
        self.pool.check()
        slabs = {slab for _, _, slab in self.live}
        assert self.pool.used == sum(slab.room for slab in slabs)
        assert self.pool.free == CAPACITY - self.pool.used

    @invariant()
    def contents(self) -> None:
        for extent, numbers, _ in self.live:
            for layer in range(LAYOUT.num_layers):
                expected = torch.tensor(numbers, dtype=torch.float32)[None, :, None].expand(2, -1, 4)
                assert torch.equal(extent.keys(layer), expected + layer)
                assert torch.equal(extent.values(layer), expected - layer)


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_pool_machine = PoolMachine.TestCase


def test_bytes_per_token() -> None:
    assert LAYOUT.bytes_per_token == 2 * 2 * 2 * 4 * 4


@pytest.mark.parametrize("damage", ["used", "leak", "overlap", "beyond", "memory"])
def test_check_finds_damage(damage: str) -> None:
    pool = KVPool(LAYOUT, CAPACITY)
    head, tail = pool.split(pool.allocate(8), 5)
    storage = tail._storage
    assert storage is not None
    if damage == "used":
        pool._used -= 1
    elif damage == "leak":
        storage.extents.clear()
    elif damage == "overlap":
        head.room += 1
    elif damage == "beyond":
        tail.room += 1
    else:
        storage.memory = LAYOUT.empty(7)
    with pytest.raises(AssertionError):
        pool.check()


def test_dead_extent_is_refused() -> None:
    pool = KVPool(LAYOUT, CAPACITY)
    extent = pool.allocate(4)
    pool.split(extent, 2)
    for use in (lambda: extent.keys(0), lambda: pool.split(extent, 1), lambda: pool.trim(extent, 2)):
        with pytest.raises(AssertionError, match="released, split or trimmed"):
            use()


def _batch(**changes: object) -> Batch:
    """Rows 0-1 are a causal chunk at positions 3-4 and row 2 decodes at position 3, both below one 3-token prefix."""
    pool = KVPool(LAYOUT, CAPACITY)
    prefix, chunk, tail = pool.allocate(3), pool.allocate(2), pool.allocate(4)
    fields: dict[str, object] = {
        "token_ids": torch.tensor([5, 6, 7]),
        "positions": torch.tensor([3, 4, 3]),
        "writes": [Write(chunk, 0, 0, 2), Write(tail, 0, 2, 3)],
        "reads": [
            Read(prefix, 3, [(0, 3)], False),
            Read(chunk, 2, [(0, 2)], True),
            Read(tail, 1, [(2, 3)], False),
        ],
        "logit_rows": torch.tensor([1, 2]),
    }
    return Batch(**(fields | changes))  # type: ignore[arg-type]


def test_batch_check() -> None:
    _batch().check()
    pool = KVPool(LAYOUT, CAPACITY)
    extent = pool.allocate(4)
    wrong: list[tuple[str, dict[str, object]]] = [
        ("positions", {"positions": torch.tensor([3, 4])}),
        ("row 2 at position 4 sees 4", {"positions": torch.tensor([3, 4, 4])}),
        ("row 0 at position 3 sees 0", {"reads": []}),
        ("a read of 5", {"reads": [Read(extent, 5, [(0, 3)], False)]}),
        ("more rows", {"reads": [Read(extent, 2, [(0, 3)], True)]}),
        ("one row range", {"reads": [Read(extent, 2, [(0, 1), (1, 2)], True)]}),
        ("rows", {"reads": [Read(extent, 2, [(2, 4)], False)]}),
        ("writes do not cover", {"writes": [Write(extent, 0, 0, 2)]}),
        ("a write ends at 5", {"writes": [Write(extent, 2, 0, 3)]}),
        ("logit row", {"logit_rows": torch.tensor([3])}),
    ]
    for message, changes in wrong:
        with pytest.raises(AssertionError, match=message):
            _batch(**changes).check()


def test_what_shared_storages_waste_is_gained_by_moving_the_rest() -> None:
    pool = KVPool(LAYOUT, CAPACITY)
    first, rest = pool.split(pool.allocate(10), 3)
    middle, last = pool.split(rest, 4)
    for number, extent in enumerate((first, last)):
        extent.data.fill_(number)
    assert pool.release(middle) == 0 and pool.wasted == 4
    assert pool.compact(1) == 4 and pool.compact(1) == 0
    assert (pool.used, pool.wasted) == (6, 0)
    assert [extent.data.unique().tolist() for extent in (first, last)] == [[0.0], [1.0]]
    pool.check()
    assert pool.release(first) + pool.release(last) == 6
