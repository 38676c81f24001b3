"""The Triton kernel for weights of 8 bits against exact products: on a GPU if there is one, else interpreted."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ramify.runtime.models.quantized import _BytesInRegisters, quantize
from ramify.runtime.weight_format import FORMATS, WeightFormat

from .gpu_kernels import DEVICE, need_triton

need_triton()
from ramify.runtime.kernels.linear import _blocks, _split, byte_linear  # noqa: E402

# The interpreter computes with numpy, which warns of numbers that are none.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
SHAPES = [(1, 64, 64), (3, 33, 70), (17, 300, 130), (70, 256, 100)]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("num_processors", [1, 64])
def test_products_are_those_of_the_rounded_weights(
    dtype: torch.dtype, format: WeightFormat, num_processors: int
) -> None:
    for num_rows, inner, outputs in SHAPES:
        torch.manual_seed(inner)
        weight, bias = torch.randn(outputs, inner, device=DEVICE), torch.randn(outputs, device=DEVICE).to(dtype)
        rows = torch.randn(num_rows, inner, device=DEVICE).to(dtype)
        residual = torch.randn(num_rows, outputs, device=DEVICE).to(dtype)
        rounded = quantize(weight, format)
        exact = rows.double() @ rounded.dequantized().double().t()
        for expected, added in (
            (exact, (None, None)),
            (exact + bias, (bias, None)),
            (exact + residual, (None, residual)),
        ):
            found = byte_linear(rows, rounded.values, rounded.scale, *added, num_processors)
            assert found.dtype == dtype and found.shape == (num_rows, outputs)
            torch.testing.assert_close(
                found.double(), expected, rtol=1e-2, atol=TOLERANCE[dtype] * 2 * math.sqrt(inner)
            )


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_every_value_is_exact(format: WeightFormat, dtype: torch.dtype) -> None:
    codes = torch.arange(256, dtype=torch.uint8, device=DEVICE)[:, None]
    values = codes.view(torch.float8_e4m3fn) if format == "fp8" else codes.view(torch.int8)
    values = values[values.float().isfinite()[:, 0]]
    ones = torch.ones(len(values), device=DEVICE)
    for num_rows in (1, 70):
        found = byte_linear(torch.ones(num_rows, 1, dtype=dtype, device=DEVICE), values, ones, None, None, 1)
        assert torch.equal(found[-1].float(), values.float()[:, 0])


def test_a_row_that_is_no_number_stays_alone() -> None:
    rounded = quantize(torch.randn(70, 200, device=DEVICE), "int8")
    rows = torch.zeros(3, 200, device=DEVICE)
    rows[1, 3] = float("nan")
    for num_processors in (1, 64):
        found = byte_linear(rows, rounded.values, rounded.scale, None, None, num_processors)
        assert found[1].isnan().all() and found[[0, 2]].eq(0).all()


def test_no_rows() -> None:
    rounded = quantize(torch.randn(70, 200, device=DEVICE), "fp8")
    assert byte_linear(torch.zeros(0, 200, device=DEVICE), rounded.values, rounded.scale, None, None, 1).shape == (
        0,
        70,
    )


def test_parts_are_added_in_a_fixed_order_and_shared_evenly() -> None:
    torch.manual_seed(3)
    rounded = quantize(torch.randn(64, 1024, device=DEVICE), "int8")
    rows = torch.randn(2, 1024, device=DEVICE)
    found = [byte_linear(rows, rounded.values, rounded.scale, None, None, 8) for _ in range(2)]
    assert torch.equal(*found)
    alone = byte_linear(rows[:1], rounded.values, rounded.scale, None, None, 8)
    assert torch.equal(alone[0], found[0][0]), "as few rows as these are shared out alike"
    assert [_split(tiles, 8, 132) for tiles in (1, 33, 66, 96, 133, 1000)] == [8, 8, 4, 2, 1, 1]
    assert [_blocks(rows)[0] for rows in (1, 16, 17, 64, 65, 5000)] == [16, 16, 32, 64, 128, 128]


def test_the_layer() -> None:
    torch.manual_seed(4)
    weight, bias = torch.randn(48, 32, device=DEVICE), torch.randn(48, device=DEVICE)
    rows, residual = torch.randn(5, 32, device=DEVICE), torch.randn(5, 48, device=DEVICE)
    rounded = quantize(weight, "fp8")
    layer = _BytesInRegisters(rounded, bias)
    expected = rows.double() @ rounded.dequantized().double().t() + bias
    torch.testing.assert_close(layer(rows).double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.add_to(residual, rows).double(), expected + residual, rtol=1e-4, atol=1e-4)


def test_it_compiles_for_a_gpu(tmp_path: Path) -> None:
    """Without a GPU: what Triton makes of it for one, in another process, which has no interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    program = Path(__file__).with_name("compile_linear_kernel.py")
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    names = ["_byte_linear", "_add_parts", "_byte_linear", "_byte_linear", "_byte_linear"]
    assert [line.split()[0] for line in lines] == names, "compiled again for as many rows, or not for another format"
    products = [line for line in lines if line.startswith("_byte_linear")]
    assert all("16_byte_copies=True" in line for line in products)
    assert ["wgmma=True" in line for line in products] == [False, False, True, True]
