"""Root mean square norm: one program a row, which is read once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# A thread holds this many numbers of a row, so that 32 bytes of bfloat16 are read at a time.
_PER_THREAD = 16


def norm(rows: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Norms rows (n, size), whose numbers lie side by side, times weight (size,)."""
    num_rows, size = rows.shape
    normed = torch.empty_like(rows)
    padded = triton.next_power_of_2(size)
    num_warps = min(16, max(1, padded // (32 * _PER_THREAD)))
    _norm[(num_rows,)](rows, weight, normed, SIZE=size, PADDED=padded, EPS=eps, num_warps=num_warps)
    return normed


@triton.jit
def _norm(rows, weight, normed, SIZE: tl.constexpr, PADDED: tl.constexpr, EPS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, PADDED)
    inside = columns < SIZE
    numbers = tl.load(rows + row * SIZE + columns, mask=inside, other=0.0).to(tl.float32)
    factor = 1.0 / tl.sqrt(tl.sum(numbers * numbers, 0) / SIZE + EPS)
    scale = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + row * SIZE + columns, (numbers * factor * scale).to(normed.dtype.element_ty), mask=inside)
