"""Meetings of query rows with keys, cut into items of work for a device with many processors.

An item is a tile of a meeting's rows and a range of its keys. Rows are packed: the query heads of a row that share a
key head count as so many rows. Tiles come in two sizes, narrow ones for rows that decode alone and wide ones for what
is shared by many rows or prefilled. Keys are cut so that a step has enough items to keep all processors busy
(flash-decoding); a row whose result so comes in parts has a slot for each, and the slots of a row are neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .tables import Table, part_slots

# Packed rows of a tile: the least that a matrix unit takes, and what one does the most work with.
NARROW_ROWS, WIDE_ROWS = 16, 128
# Fewer keys than these are not worth an item of their own; ranges of keys begin at a multiple of the blocks that a
# kernel goes through them in.
_LEAST_KEYS = {NARROW_ROWS: 128, WIDE_ROWS: 256}
# Items that a processor is to have, over all heads: three narrow ones run at a time, and one wide one; so some rounds,
# in the last of which few processors wait for long.
_ITEMS_PER_PROCESSOR = {NARROW_ROWS: 12, WIDE_ROWS: 3}
_BLOCK_KEYS = 64
# Numbers of an item: see Items.
ITEM_SIZE = 7


class Items(NamedTuple):
    """A step's attention, as kernels are given it; everything is int64.

    narrow, wide: (n, ITEM_SIZE) each: address of the first key of the node, how far heads are apart, first key and
    number of keys of the item, how many keys from the node's first on its first row sees (each row after it one more;
    all see all where no row sees less), its first entry, and the number of its rows. entries: (m, 2), a row of the
    batch and the slot of its part, -1 where the item has its whole result. begins: (rows + 1,): the slots of row i are
    begins[i] up to begins[i + 1].
    """

    narrow: Table
    wide: Table
    entries: Table
    begins: Table

    @property
    def num_slots(self) -> int:
        """Parts of all rows."""
        return int(self.begins[-1])


class _Tile(NamedTuple):
    """Rows [first, first + num_rows) of the rows of all meetings, which see `num_keys` of its keys at most."""

    first: int
    num_rows: int
    num_keys: int
    sees: int


class _Meeting(NamedTuple):
    address: int
    head_stride: int
    num_keys: int
    tiles: list[_Tile]


@dataclass(frozen=True, slots=True)
class Cutter:
    """Cuts for a model with `group` query heads to each of num_kv_heads key heads, and a device's processors."""

    group: int
    num_kv_heads: int
    num_processors: int

    def tile_rows(self, packed_rows: int) -> int:
        """Packed rows of a tile of a size: more where one row has more heads."""
        return max(packed_rows, 1 << (self.group - 1).bit_length())

    def cut(self, meetings: Table, rows: NDArray[np.int32], num_rows: int) -> Items:
        """The items of meetings from tables.meetings; all rows of the batch must be in one."""
        kinds: dict[int, list[_Meeting]] = {NARROW_ROWS: [], WIDE_ROWS: []}
        tile_rows = {kind: self.tile_rows(kind) // self.group for kind in kinds}
        for address, head_stride, length, causal, first, count, _ in meetings.tolist():
            kind = NARROW_ROWS if count * self.group <= NARROW_ROWS else WIDE_ROWS
            tiles = _tiles(first, count, length, bool(causal), tile_rows[kind])
            kinds[kind].append(_Meeting(address, head_stride, length, tiles))
        row_list: list[int] = rows.tolist()
        entry_rows: list[int] = []
        narrow, wide = (
            _items(found, self._most_keys(found, kind), row_list, entry_rows) for kind, found in kinds.items()
        )
        begins, order = part_slots(np.array(entry_rows, np.int64), num_rows)
        entries = np.full((len(entry_rows), 2), -1, np.int64)
        entries[:, 0] = entry_rows
        entries[order, 1] = np.arange(len(order))
        return Items(narrow, wide, entries, begins)

    def _most_keys(self, found: list[_Meeting], kind: int) -> int:
        """Of an item of this kind, so that every processor has enough of them."""
        total = sum(tile.num_keys for meeting in found for tile in meeting.tiles)
        num_items = self.num_processors * _ITEMS_PER_PROCESSOR[kind]
        return max(_LEAST_KEYS[kind], -(-total * self.num_kv_heads // num_items))


def _tiles(first: int, count: int, length: int, causal: bool, tile_rows: int) -> list[_Tile]:
    """The last rows first: in a causal meeting they see most, and what takes longest is best begun first."""
    before = length - count
    if count <= tile_rows:
        return [_Tile(first, count, length, before + 1 if causal else length)]
    tiles = []
    for start in reversed(range(0, count, tile_rows)):
        stop = min(start + tile_rows, count)
        seen = (before + stop, before + start + 1) if causal else (length, length)
        tiles.append(_Tile(first + start, stop - start, *seen))
    return tiles


def _items(found: list[_Meeting], most_keys: int, rows: list[int], entry_rows: list[int]) -> Table:
    """The items of meetings, int64 (n, ITEM_SIZE); adds the rows of each to `entry_rows`.

    Tiles with the same keys are neighbours, so that these are in a cache when the second one reads them.
    """
    items: list[int] = []
    for address, head_stride, num_keys, tiles in found:
        num_parts = -(-num_keys // most_keys)
        step = -(-num_keys // (num_parts * _BLOCK_KEYS)) * _BLOCK_KEYS
        for first_key in range(0, num_keys, step):
            for first, count, seen, sees in tiles:
                num_keys_here = min(step, seen - first_key)
                if num_keys_here > 0:
                    items += (address, head_stride, first_key, num_keys_here, sees, len(entry_rows), count)
                    entry_rows += rows[first : first + count]
    return np.array(items, np.int64).reshape(-1, ITEM_SIZE)
