"""One step's meeting with the KV cache: where rows put their keys and values, and how they attend to the tree.

Attention goes node by node: all query rows of a Read meet its extent in one product, and the partial results of rows
with several reads are merged by their log-sum-exp (cascade attention). All that depends on the batch alone is worked
out here once; `store` and `attend` then run per layer with few operations, because small models are bound by their
number. Products are ordered by depth in the tree, then by row. When every depth covers all rows in order, as in a pure
decode below a shared prefix, partial results already lie as a grid (depth, row) and merging moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise

import torch
from torch import Tensor

from ..batch import Batch, Read
from ..transfer import upload
from .partial import PartialAttention, ScoreRule
from .window import Seen, row_positions, seen_through

_Rows = list[tuple[int, int]]
_USUAL = ScoreRule()


@dataclass(frozen=True, slots=True)
class _Product:
    """Query rows against what they see of a read's extent; square causal when that is."""

    read: Read
    seen: Seen
    level: int

    @property
    def rows(self) -> _Rows:
        return self.seen.rows


@dataclass(frozen=True, slots=True)
class _Merge:
    """Rows that have `num_reads` partial results each: result[rows] is the merge of partials[slots].

    rows: int64 (r,). slots: int64 (r * num_reads,).
    """

    num_reads: int
    rows: Tensor
    slots: Tensor


class AttentionPlan:
    """What one batch does to the KV of every layer.

    Built per step for a model with num_heads query heads; reads and writes must cover every row of the batch. window:
    how many tokens a row sees, its own among them; None is all.
    """

    def __init__(self, batch: Batch, num_heads: int, partial: PartialAttention, *, window: int | None = None) -> None:
        kv = batch.writes[0].extent.data
        self._num_rows = batch.token_ids.numel()
        self._num_kv_heads, self._head_dim = kv.shape[2], kv.shape[4]
        self._group = num_heads // self._num_kv_heads
        self._partial = partial
        self._writes = sorted(batch.writes, key=lambda write: write.start)
        self._plan_reads(batch.reads, window, kv)

    def store(self, keys_values: Tensor, layer: int) -> None:
        """Puts a layer's new keys and values (n, 2, num_kv_heads, head_dim) where the batch's writes say."""
        sizes = [write.stop - write.start for write in self._writes]
        torch._foreach_copy_(self._targets[layer], keys_values.split_with_sizes(sizes))

    def attend(self, query: Tensor, layer: int, rule: ScoreRule = _USUAL) -> Tensor:
        """The attention of query (n, num_heads, head_dim) to everything its rows read: (n, num_heads * head_dim)."""
        outputs, sums = self._partials(query, layer, rule)
        if self._merges is not None:
            merged = self._merge_gathered(outputs, sums)
        elif self._depth > 1:
            merged = self._merge_grid(outputs, sums)
        else:
            merged = torch.cat(outputs, 2) if len(outputs) > 1 else outputs[0]
        by_row = merged.reshape(self._num_kv_heads, self._num_rows, self._group * self._head_dim).transpose(0, 1)
        return by_row.reshape(self._num_rows, -1)

    @cached_property
    def _targets(self) -> list[tuple[Tensor, ...]]:
        """For each layer, where each of the writes puts its rows."""
        per_write = [
            write.extent.span(write.offset, write.stop - write.start).permute(0, 3, 1, 2, 4).unbind()
            for write in self._writes
        ]
        return list(zip(*per_write, strict=True))

    def _plan_reads(self, reads: Sequence[Read], window: int | None, kv: Tensor) -> None:
        products = _products(reads, self._num_rows, window)
        self._depth = 1 + max(product.level for product in products)
        self._plan_pieces(products)
        self._masks = [product.seen.mask(self._group, kv.dtype, kv.device) for product in products]
        self._causal = [product.seen.causal and product.seen.first is None for product in products]
        self._slabs = [_slabs(product) for product in products]
        is_grid = all(_covers(level, self._num_rows) for level in _by_level(products, self._depth))
        self._merges = None if is_grid else _merges(products, self._num_rows, kv.device)

    def _plan_pieces(self, products: list[_Product]) -> None:
        """How to cut the packed query: sizes per level, and the pieces that each product is made of."""
        self._cuts: list[list[int]] = []
        self._pieces: list[list[int]] = []
        num_pieces = 0
        for level in _by_level(products, self._depth):
            ranges = [rows for product in level for rows in product.rows]
            bounds = sorted({0, self._num_rows, *chain.from_iterable(ranges)})
            self._cuts.append([(stop - start) * self._group for start, stop in pairwise(bounds)])
            number = {start: num_pieces + i for i, start in enumerate(bounds[:-1])}
            self._pieces += [[number[start] for start, _ in product.rows] for product in level]
            num_pieces += len(bounds) - 1

    def _partials(self, query: Tensor, layer: int, rule: ScoreRule) -> tuple[list[Tensor], list[Tensor]]:
        """Every product's output (1, kv_heads, rows * group, head_dim) and log-sum-exp (1, kv_heads, rows * group)."""
        by_head = query.view(self._num_rows, self._num_kv_heads, self._group, self._head_dim).transpose(0, 1)
        packed = by_head.reshape(1, self._num_kv_heads, self._num_rows * self._group, self._head_dim)
        pieces = [piece for cuts in self._cuts for piece in packed.split_with_sizes(cuts, 2)]
        outputs, sums = [], []
        products = zip(self._pieces, self._slabs, self._causal, self._masks, strict=True)
        for numbers, slabs, causal, mask in products:
            rows = pieces[numbers[0]] if len(numbers) == 1 else torch.cat([pieces[number] for number in numbers], 2)
            key, value = slabs[2 * layer], slabs[2 * layer + 1]
            output, log_sum_exp = self._partial(rows, key, value, self._group, causal, rule, mask)
            outputs.append(output)
            sums.append(log_sum_exp)
        return outputs, sums

    def _merge_grid(self, outputs: list[Tensor], sums: list[Tensor]) -> Tensor:
        """Merges partial results that lie as (kv_heads, depth, rows * group, head_dim) when put together."""
        shape = (self._num_kv_heads, self._depth, self._num_rows * self._group)
        weights = torch.cat(sums, 2).view(shape).softmax(1).unsqueeze(-1)
        return _weighted_sum(torch.cat(outputs, 2).view(*shape, self._head_dim), weights, 1)

    def _merge_gathered(self, outputs: list[Tensor], sums: list[Tensor]) -> Tensor:
        """Merges any tree of reads, one group of rows with equally many reads at a time."""
        assert self._merges is not None
        output = torch.cat(outputs, 2).view(self._num_kv_heads, -1, self._group, self._head_dim)
        log_sum_exp = torch.cat(sums, 2).view(self._num_kv_heads, -1, self._group)
        merged = output.new_empty(self._num_kv_heads, self._num_rows, self._group, self._head_dim)
        for merge in self._merges:
            part = output.index_select(1, merge.slots)
            if merge.num_reads > 1:
                shape = (self._num_kv_heads, -1, merge.num_reads, self._group)
                weights = log_sum_exp.index_select(1, merge.slots).view(shape).softmax(2).unsqueeze(-1)
                part = _weighted_sum(part.view(*weights.shape[:-1], self._head_dim), weights, 2)
            merged.index_copy_(1, merge.rows, part)
        return merged


def _weighted_sum(parts: Tensor, weights: Tensor, dim: int) -> Tensor:
    """Sums `parts` (used up) with float32 weights along `dim`; in float32 whatever the dtype of the parts."""
    weighted = parts.mul_(weights) if parts.dtype == torch.float32 else parts * weights
    return weighted.sum(dim).to(parts.dtype)


def _products(reads: Sequence[Read], num_rows: int, window: int | None) -> list[_Product]:
    """The reads as products, ordered by depth in the tree, then by first row."""
    depths = [0] * num_rows
    positions = [] if window is None else row_positions(reads, num_rows)
    products = []
    for read in reads:
        for part in _parts(read):
            seen = part if window is None else seen_through(window, read, part, positions)
            if seen is not None:
                products.append(_Product(read, seen, _descend(depths, seen.rows)))
    assert all(depths), "a row of the batch reads nothing, not even itself"
    return sorted(products, key=lambda product: (product.level, product.rows[0]))


def _parts(read: Read) -> Iterator[Seen]:
    """A read; or, of a causal one of several rows, the tokens before these, which all see, and the square."""
    square = read.rows[0][1] - read.rows[0][0] if read.causal else 0
    if square <= 1:
        yield Seen(0, read.length, read.rows, False)
        return
    before = read.length - square
    if before:
        yield Seen(0, before, read.rows, False)
    yield Seen(before, square, read.rows, True)


def _descend(depths: list[int], rows: _Rows) -> int:
    """The level of the next product of these rows: below all that any of them has had. Updates `depths`."""
    level = max(max(depths[start:stop]) for start, stop in rows)
    for start, stop in rows:
        depths[start:stop] = [level + 1] * (stop - start)
    return level


def _by_level(products: list[_Product], depth: int) -> list[list[_Product]]:
    levels: list[list[_Product]] = [[] for _ in range(depth)]
    for product in products:
        levels[product.level].append(product)
    return levels


def _covers(level: list[_Product], num_rows: int) -> bool:
    """Whether the products of a level cover all rows, in order."""
    end = 0
    for start, stop in (rows for product in level for rows in product.rows):
        if start != end:
            return False
        end = stop
    return end == num_rows


def _slabs(product: _Product) -> tuple[Tensor, ...]:
    """The keys and values of every layer, keys of layer i at 2 * i: (1, num_kv_heads, length, head_dim) each."""
    span = product.read.extent.span(product.seen.start, product.seen.length)
    num_layers, _, *slab = span.shape
    return span.view(2 * num_layers, 1, *slab).unbind()


def _merges(products: list[_Product], num_rows: int, device: torch.device) -> list[_Merge]:
    """For rows with equally many reads, where their partial results lie once those of all products are put together."""
    slots: list[list[int]] = [[] for _ in range(num_rows)]
    rows_of_slots = (range(start, stop) for product in products for start, stop in product.rows)
    for slot, row in enumerate(chain.from_iterable(rows_of_slots)):
        slots[row].append(slot)
    groups: dict[int, list[int]] = {}
    for row, of_row in enumerate(slots):
        groups.setdefault(len(of_row), []).append(row)
    return [
        _Merge(
            num_reads,
            upload(rows, torch.int64, device),
            upload([slot for row in rows for slot in slots[row]], torch.int64, device),
        )
        for num_reads, rows in groups.items()
    ]
