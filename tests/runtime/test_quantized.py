"""Weights of 8 bits: how far they are from those that were rounded, and products with them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ramify.ir.errors import UsageError
from ramify.runtime.models import quantized
from ramify.runtime.models.linear import Linear
from ramify.runtime.models.native_build import library
from ramify.runtime.models.quantized import Quantized, _BytePanels, _Widened, make_quantized_linear, quantize
from ramify.runtime.weight_format import FORMATS, WeightFormat, check_format
from torch import Tensor

# Of a result, against the exact product with the rounded weights.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
LARGEST_FP8, LEAST_NORMAL_FP8 = 448.0, 2.0**-6

Make = Callable[[Quantized, Tensor | None], Linear]


def _panels(weight: Quantized, bias: Tensor | None) -> Linear:
    if (kernels := library()) is None:
        pytest.skip("no compiled kernels here")
    return _BytePanels(weight, bias, kernels)


MAKES = {"panels": _panels, "widened": _Widened}


def _error_bound(format: WeightFormat, rounded: Quantized) -> Tensor:
    """Half of the distance between the values beside each weight."""
    if format == "int8":
        return (rounded.scale / 2)[:, None].expand(rounded.values.shape)
    size = rounded.values.float().abs().clamp_min(LEAST_NORMAL_FP8)
    return torch.exp2(torch.floor(torch.log2(size))) / 16 * rounded.scale[:, None]


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.sampled_from([1e-30, 1e-3, 1.0, 1e4, 1e30]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_a_weight_moves_by_half_a_step_at_most(
    format: WeightFormat, seed: int, shape: tuple[int, int], size: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(seed)
    weight = (torch.randn(shape) * size).to(dtype)
    rounded = quantize(weight, format)
    error = (rounded.dequantized().double() - weight.double()).abs()
    # The quotient is itself rounded: a weight halfway between two values may go to either.
    assert (error <= _error_bound(format, rounded).double() * (1 + 1e-4)).all()
    assert (rounded.dequantized().abs().amax(1) >= weight.abs().amax(1).float() * (1 - 1e-6)).all()


@pytest.mark.parametrize("format", FORMATS)
def test_what_the_format_holds_stays(format: WeightFormat) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    held = codes.view(torch.float8_e4m3fn).float() if format == "fp8" else codes.view(torch.int8).float()
    held = held[held.isfinite() & (held.abs() <= (LARGEST_FP8 if format == "fp8" else 127))]
    rounded = quantize(held[None] * 0.25, format)
    assert rounded.scale.tolist() == [0.25] and torch.equal(rounded.dequantized(), held[None] * 0.25)


@pytest.mark.parametrize("format", FORMATS)
def test_outputs_of_zeros_and_of_the_least_numbers(format: WeightFormat) -> None:
    weight = torch.zeros(3, 5)
    weight[1, 2] = 1e-42  # no normal number
    weight[2, 0] = -3.0
    rounded = quantize(weight, format)
    assert rounded.scale.isfinite().all() and (rounded.scale > 0).all()
    assert rounded.dequantized()[0].eq(0).all() and rounded.dequantized()[1].abs().max() <= 1e-38
    assert rounded.dequantized()[2].tolist() == [-3.0, 0, 0, 0, 0]


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("inner", "outputs"), [(1, 1), (33, 64), (64, 65), (700, 1030)])
@pytest.mark.parametrize("num_rows", [0, 1, 5, 7, 100])
def test_products_are_those_of_the_rounded_weights(
    make: Make, dtype: torch.dtype, format: WeightFormat, inner: int, outputs: int, num_rows: int
) -> None:
    torch.manual_seed(inner)
    weight, bias = torch.randn(outputs, inner).to(dtype), torch.randn(outputs).to(dtype)
    rows, residual = torch.randn(num_rows, inner).to(dtype), torch.randn(num_rows, outputs).to(dtype)
    rounded = quantize(weight, format)
    exact = rows.double() @ rounded.dequantized().double().t()
    tolerance = TOLERANCE[dtype] * math.sqrt(inner) * 2
    for with_bias in (False, True):
        layer = make(rounded, bias if with_bias else None)
        expected = exact + bias.double() if with_bias else exact
        before = residual.clone()
        result, added = layer(rows), layer.add_to(residual, rows)
        assert result.dtype == added.dtype == dtype and result.shape == (num_rows, outputs)
        torch.testing.assert_close(result.double(), expected, rtol=1e-2, atol=tolerance)
        torch.testing.assert_close(added.double(), residual.double() + expected, rtol=1e-2, atol=tolerance)
        assert torch.equal(residual, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("format", FORMATS)
def test_a_row_does_not_depend_on_those_beside_it(dtype: torch.dtype, format: WeightFormat, num_threads: int) -> None:
    torch.manual_seed(0)
    layer = _panels(quantize(torch.randn(300, 250), format), None)
    rows, residual = torch.randn(110, 250).to(dtype), torch.randn(110, 300).to(dtype)
    together, added = layer(rows), layer.add_to(residual, rows)
    for i in (0, 3, 95, 96, 109):
        assert torch.equal(layer(rows[i : i + 1])[0], together[i])
        assert torch.equal(layer.add_to(residual[i : i + 1], rows[i : i + 1])[0], added[i])


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@pytest.mark.parametrize("format", FORMATS)
def test_every_value_is_exact_in_a_product(make: Make, format: WeightFormat) -> None:
    codes = torch.arange(256, dtype=torch.uint8)[:, None]
    values = codes.view(torch.float8_e4m3fn) if format == "fp8" else codes.view(torch.int8)
    values = values[values.float().isfinite()[:, 0]] if format == "fp8" else values[values[:, 0] != -128]
    wide = values.float()[:, 0]
    layer = make(Quantized(format, values, torch.ones(len(values))), None)
    for dtype in (torch.float32, torch.bfloat16):
        for num_rows in (1, 9):
            assert torch.equal(layer(torch.ones(num_rows, 1, dtype=dtype))[-1].float(), wide)


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_numbers_that_are_none_stay_in_their_row(make: Make) -> None:
    layer = make(quantize(torch.randn(70, 8), "int8"), None)
    rows = torch.zeros(2, 8)
    rows[1, 3] = float("nan")
    assert layer(rows)[0].isfinite().all() and layer(rows)[1].isnan().all()


def test_sums_beyond_what_float16_holds_are_scaled_first() -> None:
    weight = torch.full((2, 600), 0.5, dtype=torch.float16)
    for layer in (_Widened(quantize(weight, "fp8"), None), make_quantized_linear(weight, None, "fp8")):
        torch.testing.assert_close(layer(torch.ones(1, 600, dtype=torch.float16)).float(), torch.full((1, 2), 300.0))


def test_the_kernels_are_taken_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.ones(4, 4)
    if library() is not None:
        assert isinstance(make_quantized_linear(weight, None, "int8"), _BytePanels)
    monkeypatch.setattr(quantized, "library", lambda: None)
    assert isinstance(make_quantized_linear(weight, None, "int8"), _Widened)


def test_formats() -> None:
    for known in (None, *FORMATS):
        check_format(known)
    with pytest.raises(UsageError, match=r"'int4' is no format of weights") as caught:
        check_format("int4")
    assert caught.value.help == "the formats are int8, fp8"
