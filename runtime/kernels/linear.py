"""Products with weights of 8 bits (models/quantized.py): bytes are read as they are and widened in registers.

Few rows are bound by reading weights. Then the inner length is split between programs, enough of them to keep all
processors reading, and a second kernel adds the parts up in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor, float32, int8

# Outputs of a program that adds parts up.
_ADDED = 1024


def byte_linear(
    rows: Tensor, values: Tensor, scale: Tensor, bias: Tensor | None, residual: Tensor | None, num_processors: int
) -> Tensor:
    """rows (n, in) @ (values * scale).T + bias + residual, in the rows' dtype: (n, out).

    values: (out, in), int8 or float8_e4m3fn; scale: (out,) in float32. num_processors: of the device.
    """
    (num_rows, inner), outputs = rows.shape, values.shape[0]
    result = rows.new_empty(num_rows, outputs)
    if num_rows == 0:
        return result
    block_rows, block_outputs, block_inner, warps, stages = _blocks(num_rows)
    tiles = triton.cdiv(num_rows, block_rows) * triton.cdiv(outputs, block_outputs)
    split = _split(tiles, triton.cdiv(inner, block_inner), num_processors)
    parts = result if split == 1 else rows.new_empty(split, num_rows, outputs, dtype=float32)
    ends = {"OUTPUTS": outputs, "HAS_BIAS": bias is not None, "HAS_RESIDUAL": residual is not None}
    _byte_linear[(tiles, split)](
        rows.contiguous(), values.view(int8), scale, bias, residual, parts, num_rows,
        INNER=inner, BLOCK_ROWS=block_rows, BLOCK_OUTPUTS=block_outputs, BLOCK_INNER=block_inner,
        SPLIT=split, IS_FLOAT=values.dtype != int8,
        # Triton's interpreter, which is for CPUs, multiplies with numpy, which has no bfloat16.
        OPERANDS=tl.float32 if rows.device.type == "cpu" else None,
        num_warps=warps, num_stages=stages, **ends,
    )  # fmt: skip
    if split > 1:
        grid = (num_rows, triton.cdiv(outputs, _ADDED))
        _add_parts[grid](parts, scale, bias, residual, result, num_rows, SPLIT=split, BLOCK=_ADDED, **ends)
    return result


def _blocks(num_rows: int) -> tuple[int, int, int, int, int]:
    """Rows, outputs and inner length of a program; its warps, and how many blocks it loads ahead."""
    if num_rows > 64:
        return 128, 128, 64, 8, 3
    return max(16, triton.next_power_of_2(num_rows)), 64, 128, 4, 4


def _split(tiles: int, blocks: int, num_processors: int) -> int:
    """Programs that share the inner length of a tile: two for each processor if it can be, and a power of two."""
    wanted = min(2 * num_processors // tiles, blocks)
    return 1 << (wanted.bit_length() - 1) if wanted > 1 else 1


@triton.jit(do_not_specialize=["num_rows"])
def _byte_linear(
    rows,
    values,
    scale,
    bias,
    residual,
    result,
    num_rows,
    INNER: tl.constexpr,
    OUTPUTS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
    SPLIT: tl.constexpr,
    IS_FLOAT: tl.constexpr,
    OPERANDS: tl.constexpr,
):
    """A tile of the result; of SPLIT programs each takes every so manyth block of the inner length."""
    tile, part = tl.program_id(0), tl.program_id(1)
    # Programs with the same weights are neighbours.
    row_blocks = (num_rows + BLOCK_ROWS - 1) // BLOCK_ROWS
    row = tile % row_blocks * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    output = tile // row_blocks * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    # What is beyond the end reads the last one again, and is not stored.
    left = rows + tl.minimum(row, num_rows - 1).to(tl.int64)[:, None] * INNER
    right = values + tl.minimum(output, OUTPUTS - 1).to(tl.int64)[:, None] * INNER
    operands: tl.constexpr = rows.dtype.element_ty if OPERANDS is None else OPERANDS
    sums = tl.full((BLOCK_ROWS, BLOCK_OUTPUTS), 0.0, tl.float32)
    for block in range((INNER + SPLIT * BLOCK_INNER - 1) // (SPLIT * BLOCK_INNER)):
        inner = (block * SPLIT + part) * BLOCK_INNER + tl.arange(0, BLOCK_INNER)
        if INNER % (SPLIT * BLOCK_INNER) == 0:
            some_rows = tl.load(left + inner[None, :])
            some_values = tl.load(right + inner[None, :])
        else:
            some_rows = tl.load(left + inner[None, :], mask=(inner < INNER)[None, :], other=0.0)
            some_values = tl.load(right + inner[None, :], mask=(inner < INNER)[None, :], other=0)
        widened = _widen(some_values, IS_FLOAT, operands)
        # Of 32 bits a matrix unit takes 19; in three products nearly nothing is lost.
        sums = tl.dot(some_rows.to(operands), tl.trans(widened), sums, input_precision="tf32x3")
    if IS_FLOAT:
        sums *= 256.0
    if SPLIT == 1:
        _store_outputs(
            sums, row[:, None], output[None, :], scale, bias, residual, result, num_rows, OUTPUTS, HAS_BIAS,
            HAS_RESIDUAL,
        )  # fmt: skip
    else:
        inside = (row < num_rows)[:, None] & (output < OUTPUTS)[None, :]
        place = (part.to(tl.int64) * num_rows + row[:, None]) * OUTPUTS + output[None, :]
        tl.store(result + place, sums, mask=inside)


@triton.jit(do_not_specialize=["num_rows"])
def _add_parts(
    parts,
    scale,
    bias,
    residual,
    result,
    num_rows,
    OUTPUTS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """parts: (SPLIT, num_rows, OUTPUTS)."""
    row = tl.program_id(0) + tl.arange(0, 1)[:, None]
    output = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    sums = tl.full((1, BLOCK), 0.0, tl.float32)
    for part in range(SPLIT):
        place = (part * num_rows + row).to(tl.int64) * OUTPUTS + output
        sums += tl.load(parts + place, mask=output < OUTPUTS, other=0.0)
    _store_outputs(sums, row, output, scale, bias, residual, result, num_rows, OUTPUTS, HAS_BIAS, HAS_RESIDUAL)


@triton.jit
def _widen(values, IS_FLOAT: tl.constexpr, operands: tl.constexpr):
    """What bytes stand for; of floats a 256th, which is what their bits mean when they are moved into a float16."""
    if IS_FLOAT:
        # The sign is spread over the upper bits: it is kept in the first, and the second is the exponent's.
        bits = (values.to(tl.int16) << 7) & -16385
        return bits.to(tl.float16, bitcast=True).to(operands)
    return values.to(operands)


@triton.jit
def _store_outputs(
    sums,
    row,
    output,
    scale,
    bias,
    residual,
    result,
    num_rows,
    OUTPUTS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
):
    """Scales sums, adds what is to be added and rounds once. `row` and `output` spread to the sums' shape."""
    sums *= tl.load(scale + output, mask=output < OUTPUTS, other=0.0)
    if HAS_BIAS:
        sums += tl.load(bias + output, mask=output < OUTPUTS, other=0.0).to(tl.float32)
    inside = (row < num_rows) & (output < OUTPUTS)
    place = row.to(tl.int64) * OUTPUTS + output
    if HAS_RESIDUAL:
        sums += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(result + place, sums.to(result.dtype.element_ty), mask=inside)
