"""silu(gate) * up, of gates and ups that lie beside one another."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

# With four warps eight numbers a thread: 16 bytes of bfloat16.
_BLOCK = 1024


def gate(gate_up: Tensor) -> Tensor:
    """Of contiguous rows (n, 2 * size), the gates before the ups: (n, size)."""
    num_rows, size = gate_up.shape[0], gate_up.shape[1] // 2
    gated = gate_up.new_empty(num_rows, size)
    _gate[(num_rows, triton.cdiv(size, _BLOCK))](gate_up, gated, SIZE=size, BLOCK=_BLOCK, num_warps=4)
    return gated


@triton.jit
def _gate(gate_up, gated, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < SIZE
    gates = tl.load(gate_up + row * 2 * SIZE + columns, mask=inside, other=0.0).to(tl.float32)
    ups = tl.load(gate_up + row * 2 * SIZE + SIZE + columns, mask=inside, other=0.0).to(tl.float32)
    result = gates / (1.0 + tl.exp(-gates)) * ups
    tl.store(gated + row * SIZE + columns, result.to(gated.dtype.element_ty), mask=inside)
