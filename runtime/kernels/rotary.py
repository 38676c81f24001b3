"""What follows the projection to heads: their norms, rotary embeddings, and keys and values going to their places.

The two channels of a rotary pair lie side by side. Queries are turned where they are; keys and values go to the KV of
the row's token, by its address.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .shapes import HeadShape

# Heads of a row in one program: with head_dim 128 and four warps, eight numbers a thread.
_HEADS = 8


def turn_and_store(
    fused: Tensor, weight: Tensor | None, factors: Tensor, targets: Tensor, layer: int, shape: HeadShape, eps: float
) -> None:
    """Norms and turns the heads of `fused`, contiguous (n, (num_heads + 2 * num_kv_heads) * head_dim); stores KV.

    weight: (num_heads + num_kv_heads, head_dim) of the norm, if there is one. factors: float32 (n, head_dim / 2, 2),
    the cosine and the sine of each pair's angle. targets: int64 (n, 2), see attention/tables.py.
    """
    num_all = shape.num_heads + 2 * shape.num_kv_heads
    _turn_and_store[(fused.shape[0], triton.cdiv(num_all, _HEADS))](
        fused,
        fused if weight is None else weight,
        factors,
        targets,
        layer,
        HAS_NORM=weight is not None,
        NUM_HEADS=shape.num_heads,
        NUM_KV_HEADS=shape.num_kv_heads,
        SIZE=shape.head_dim,
        PADDED=shape.padded_dim,
        ALIGNMENT=shape.alignment(fused.dtype),
        HEADS=_HEADS,
        EPS=eps,
        num_warps=4,
    )


@triton.jit(do_not_specialize=["layer"])
def _turn_and_store(
    fused,
    weight,
    factors,
    targets,
    layer,
    HAS_NORM: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    HEADS: tl.constexpr,
    EPS: tl.constexpr,
):
    NUM_ALL: tl.constexpr = NUM_HEADS + 2 * NUM_KV_HEADS
    dtype: tl.constexpr = fused.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    column = tl.arange(0, PADDED)
    is_query, is_turned = head < NUM_HEADS, head < NUM_HEADS + NUM_KV_HEADS
    inside = (head < NUM_ALL)[:, None] & (column < SIZE)[None, :]
    place = head[:, None] * SIZE + column[None, :]
    stored = tl.load(fused + row * NUM_ALL * SIZE + place, mask=inside, other=0.0)
    numbers = stored.to(tl.float32)
    if HAS_NORM:
        factor = 1.0 / tl.sqrt(tl.sum(numbers * numbers, 1) / SIZE + EPS)
        scale = tl.load(weight + place, mask=inside & is_turned[:, None], other=0.0).to(tl.float32)
        numbers = numbers * factor[:, None] * scale
    cosine, sine = tl.split(
        tl.reshape(tl.load(factors + row * SIZE + column, mask=column < SIZE, other=0.0), (PADDED // 2, 2))
    )
    first, second = tl.split(tl.reshape(numbers, (HEADS, PADDED // 2, 2)))
    real = first * cosine[None, :] - second * sine[None, :]
    imaginary = first * sine[None, :] + second * cosine[None, :]
    turned = tl.reshape(tl.join(real, imaginary), (HEADS, PADDED)).to(dtype)
    result = tl.where(is_turned[:, None], turned, stored)
    tl.store(fused + row * NUM_ALL * SIZE + place, result, mask=inside & is_query[:, None])
    kv = tl.multiple_of(tl.load(targets + 2 * row).to(tl.pointer_type(dtype)), ALIGNMENT)
    head_stride = tl.load(targets + 2 * row + 1)
    # Keys and values of a layer lie one after the other, as their heads do here.
    slab = head - NUM_HEADS + layer * 2 * NUM_KV_HEADS
    kv_place = slab.to(tl.int64)[:, None] * head_stride + column[None, :]
    tl.store(kv + kv_place, result, mask=inside & (head >= NUM_HEADS)[:, None])
