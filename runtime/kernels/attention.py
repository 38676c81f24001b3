"""Attention of items (attention/items.py): a tile of query rows to a range of one node's keys, and merging the parts.

Flash attention's way through the keys (arXiv 2205.14135), in blocks, with scores in base 2. Whether many rows meet a
shared prefix, one row a range of its own past, or a chunk of a prompt itself is all the same here. Parts are float32,
so that merging loses nothing; a row with one part goes straight to the output.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from ..attention.items import ITEM_SIZE, NARROW_ROWS, WIDE_ROWS
from .shapes import HeadShape


class _Config(NamedTuple):
    """keys: those of a block. stages: blocks under way from memory at a time."""

    keys: int
    warps: int
    stages: int


# Chosen for Hopper and heads of 128 in 16 bits, where a block of 64 keys with its values is 32 KiB. Narrow tiles wait
# for memory: a program takes 70 KiB, so three fit a processor's 228 KiB and keep more than the 30 KiB on their way that
# hide the memory's latency. Wide tiles are bound by products: 128 rows are what two warp groups take in one, and one
# program fills a processor. In 32 bits blocks are as small in bytes.
_CONFIGS = {
    (NARROW_ROWS, 2): _Config(keys=64, warps=4, stages=3),
    (WIDE_ROWS, 2): _Config(keys=64, warps=8, stages=3),
    (NARROW_ROWS, 4): _Config(keys=32, warps=4, stages=2),
    (WIDE_ROWS, 4): _Config(keys=32, warps=8, stages=2),
}
# Parts of a row that are merged at a time: decoding alone with a long context makes a few dozen.
_PARTS = 16
_LOG2_E = 1.4426950408889634


def attend_items(
    fused: Tensor,
    items: Tensor,
    entries: Tensor,
    output: Tensor,
    parts: Tensor,
    sums: Tensor,
    layer: int,
    shape: HeadShape,
    packed_rows: int,
    tile_rows: int,
) -> None:
    """What items (n, ITEM_SIZE) say, for all heads; an item without rows is nothing.

    fused: contiguous (rows, (num_heads + 2 * num_kv_heads) * head_dim), queries first. output: contiguous
    (rows, num_heads * head_dim). parts: float32 (slots, num_heads, head_dim), sums: float32 (slots, num_heads),
    log-sum-exps in base 2. packed_rows: the kind of tile, tile_rows: its size.
    """
    config = _CONFIGS[packed_rows, fused.dtype.itemsize]
    block = max(16, config.keys * 128 // max(128, shape.padded_dim))
    _attend_items[(items.shape[0], shape.num_kv_heads)](
        fused,
        items,
        entries,
        output,
        parts,
        sums,
        layer,
        GROUP=shape.group,
        NUM_KV_HEADS=shape.num_kv_heads,
        SIZE=shape.head_dim,
        PADDED=shape.padded_dim,
        ALIGNMENT=shape.alignment(fused.dtype),
        ITEM_SIZE=ITEM_SIZE,
        SCALE=shape.head_dim**-0.5 * _LOG2_E,
        # Triton's interpreter, which is for CPUs, multiplies with numpy, which has no bfloat16.
        OPERANDS=tl.float32 if fused.device.type == "cpu" else None,
        TILE=tile_rows,
        BLOCK=block,
        num_warps=config.warps,
        num_stages=config.stages,
    )


def merge_parts(parts: Tensor, sums: Tensor, begins: Tensor, output: Tensor, shape: HeadShape) -> None:
    """Merges the parts of each row that has several: slots begins[i] up to begins[i + 1] are those of row i."""
    _merge_parts[(output.shape[0], shape.num_heads)](
        parts,
        sums,
        begins,
        output,
        NUM_HEADS=shape.num_heads,
        SIZE=shape.head_dim,
        PADDED=shape.padded_dim,
        PARTS=_PARTS,
        num_warps=2,
    )


@triton.jit(do_not_specialize=["layer"])
def _attend_items(
    fused,
    items,
    entries,
    output,
    parts,
    sums,
    layer,
    GROUP: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    ITEM_SIZE: tl.constexpr,
    SCALE: tl.constexpr,
    OPERANDS: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    NUM_HEADS: tl.constexpr = GROUP * NUM_KV_HEADS
    dtype: tl.constexpr = fused.dtype.element_ty
    operands: tl.constexpr = dtype if OPERANDS is None else OPERANDS
    item = items + tl.program_id(0) * ITEM_SIZE
    kv_head = tl.program_id(1)
    num_rows = tl.load(item + 6).to(tl.int32)
    if num_rows == 0:
        return
    head_stride = tl.load(item + 1)
    first_key = tl.load(item + 2).to(tl.int32)
    end = first_key + tl.load(item + 3).to(tl.int32)
    sees = tl.load(item + 4).to(tl.int32)
    first_entry = tl.load(item + 5)

    packed = tl.arange(0, TILE)
    tile_row = packed // GROUP
    head = kv_head * GROUP + packed % GROUP
    is_row = tile_row < num_rows
    entry = entries + 2 * (first_entry + tile_row)
    row = tl.load(entry, mask=is_row, other=0)
    slot = tl.load(entry + 1, mask=is_row, other=-1)
    column = tl.arange(0, PADDED)
    inside = is_row[:, None] & (column < SIZE)[None, :]
    query_place = row * ((NUM_HEADS + 2 * NUM_KV_HEADS) * SIZE) + head * SIZE
    query = tl.load(fused + query_place[:, None] + column[None, :], mask=inside, other=0.0).to(operands)

    slab = layer * (2 * NUM_KV_HEADS) + kv_head
    first_of_node = tl.load(item).to(tl.pointer_type(dtype)) + slab * head_stride
    keys = tl.multiple_of(first_of_node, ALIGNMENT)
    values = tl.multiple_of(first_of_node + NUM_KV_HEADS * head_stride, ALIGNMENT)
    visible = tl.where(is_row, sees + tile_row, 0)

    maximum = tl.full((TILE,), float("-inf"), tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    sum_ = tl.zeros((TILE, PADDED), tl.float32)
    # Blocks that all rows see whole come first and need no mask.
    whole = first_key + tl.maximum(tl.minimum(end, sees) - first_key, 0) // BLOCK * BLOCK
    for start in tl.range(first_key, whole, BLOCK):
        maximum, total, sum_ = _meet(
            query, keys, values, start, end, visible, maximum, total, sum_, False, SIZE, PADDED, SCALE, BLOCK
        )
    for start in tl.range(whole, end, BLOCK):
        maximum, total, sum_ = _meet(
            query, keys, values, start, end, visible, maximum, total, sum_, True, SIZE, PADDED, SCALE, BLOCK
        )

    # A row that sees no key of this item has a part that counts nothing.
    result = sum_ / tl.where(total == 0.0, 1.0, total)[:, None]
    is_whole = slot < 0
    output_place = row * (NUM_HEADS * SIZE) + head * SIZE
    tl.store(output + output_place[:, None] + column[None, :], result.to(dtype), mask=inside & is_whole[:, None])
    part = slot * NUM_HEADS + head
    tl.store(parts + part[:, None] * SIZE + column[None, :], result, mask=inside & (slot >= 0)[:, None])
    length = tl.where(total == 0.0, float("-inf"), maximum + tl.log2(tl.where(total == 0.0, 1.0, total)))
    tl.store(sums + part, length, mask=is_row & (slot >= 0))


@triton.jit
def _meet(
    query,
    keys,
    values,
    start,
    end,
    visible,
    maximum,
    total,
    sum_,
    MASKED: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    SCALE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One block of keys and values; `visible`: how many keys from the node's first on each row sees."""
    number = start + tl.arange(0, BLOCK)
    column = tl.arange(0, PADDED)
    place = number.to(tl.int64)[:, None] * SIZE + column[None, :]
    if MASKED or PADDED != SIZE:
        there = (number < end)[:, None] & (column < SIZE)[None, :]
        key = tl.load(keys + place, mask=there, other=0.0).to(query.dtype)
        value = tl.load(values + place, mask=there, other=0.0).to(query.dtype)
    else:
        key = tl.load(keys + place).to(query.dtype)
        value = tl.load(values + place).to(query.dtype)
    # Of 32 bits a matrix unit takes 19; in three products nearly nothing is lost.
    scores = tl.dot(query, tl.trans(key), input_precision="tf32x3") * SCALE
    if MASKED:
        scores = tl.where(number[None, :] < tl.minimum(visible, end)[:, None], scores, float("-inf"))
    new = tl.maximum(maximum, tl.max(scores, 1))
    shift = tl.where(new == float("-inf"), 0.0, new)
    weights = tl.exp2(scores - shift[:, None])
    shrink = tl.exp2(maximum - shift)
    total = total * shrink + tl.sum(weights, 1)
    sum_ = sum_ * shrink[:, None] + tl.dot(weights.to(query.dtype), value, input_precision="tf32x3")
    return new, total, sum_


@triton.jit
def _merge_parts(
    parts,
    sums,
    begins,
    output,
    NUM_HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    PARTS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    begin = tl.load(begins + row)
    end = tl.load(begins + row + 1)
    if begin == end:
        return
    column = tl.arange(0, PADDED)
    maximum = tl.max(tl.full((1,), float("-inf"), tl.float32), 0)
    total = tl.sum(tl.zeros((1,), tl.float32), 0)
    sum_ = tl.zeros((PADDED,), tl.float32)
    for first in tl.range(begin, end, PARTS):
        slot = first + tl.arange(0, PARTS)
        place = slot * NUM_HEADS + head
        lengths = tl.load(sums + place, mask=slot < end, other=float("-inf"))
        there = (slot < end)[:, None] & (column < SIZE)[None, :]
        part = tl.load(parts + place[:, None] * SIZE + column[None, :], mask=there, other=0.0)
        new = tl.maximum(maximum, tl.max(lengths, 0))
        shift = tl.where(new == float("-inf"), 0.0, new)
        weights = tl.exp2(lengths - shift)
        shrink = tl.exp2(maximum - shift)
        total = total * shrink + tl.sum(weights, 0)
        sum_ = sum_ * shrink + tl.sum(weights[:, None] * part, 0)
        maximum = new
    place = (row * NUM_HEADS + head) * SIZE + column
    tl.store(output + place, (sum_ / total).to(output.dtype.element_ty), mask=column < SIZE)
