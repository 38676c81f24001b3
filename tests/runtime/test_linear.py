"""Linear layers against torch's own, in every form that this machine has."""

from __future__ import annotations

import pytest
import torch
from ramify.runtime.models import linear
from ramify.runtime.models.linear import PanelLinear, _can_reorder, _Plain, _Reordered, make_linear
from ramify.runtime.models.native_build import library
from torch.nn import functional

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("num_rows", [1, 3, 40])
def test_every_form_gives_what_torch_gives(dtype: torch.dtype, has_bias: bool, num_rows: int) -> None:
    torch.manual_seed(num_rows)
    weight = torch.randn(48, 32).to(dtype) / 8
    bias = torch.randn(48).to(dtype) if has_bias else None
    rows, residual = torch.randn(num_rows, 32).to(dtype), torch.randn(num_rows, 48).to(dtype)
    forms = [make_linear(weight, bias), _Plain(weight, bias)]
    if dtype == torch.bfloat16 and _can_reorder():
        forms.append(_Reordered(weight, bias))
    expected = functional.linear(rows.double(), weight.double(), None if bias is None else bias.double())
    for layer in forms:
        torch.testing.assert_close(layer(rows).double(), expected, rtol=0, atol=TOLERANCE[dtype] * 4)
        torch.testing.assert_close(
            layer.add_to(residual, rows).double(), residual.double() + expected, rtol=0, atol=TOLERANCE[dtype] * 8
        )


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "library", lambda: None)


def test_bfloat16_weights_are_reordered_where_torch_can(no_kernels: None) -> None:
    if not _can_reorder():
        pytest.skip("this torch or this processor does not reorder bfloat16 weights")
    assert isinstance(make_linear(torch.ones(4, 4, dtype=torch.bfloat16)), _Reordered)


def test_a_processor_with_tiles_takes_what_onednn_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    if not _can_reorder() or not hasattr(library(), "ramify_linear_bfloat16"):
        pytest.skip("this processor has no instructions for bfloat16, or there are no compiled kernels")
    for has_tiles, form in ((False, PanelLinear), (True, _Reordered)):
        monkeypatch.setattr(linear, "_has_tiles", lambda has_tiles=has_tiles: has_tiles)
        assert isinstance(make_linear(torch.ones(4, 4, dtype=torch.bfloat16)), form)
        assert isinstance(make_linear(torch.ones(4, 4)), PanelLinear)


def test_a_torch_without_the_operations_is_no_error(no_kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    _can_reorder.cache_clear()
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    try:
        assert isinstance(make_linear(torch.ones(4, 4, dtype=torch.bfloat16)), _Plain)
    finally:
        _can_reorder.cache_clear()


@pytest.mark.parametrize("form", ["float32", "halves", "bfloat16"])
@pytest.mark.parametrize(("inner", "outputs"), [(2, 1), (34, 64), (32, 65), (1500, 130), (2100, 64)])
@pytest.mark.parametrize("num_rows", [1, 6, 7, 200])
def test_panels_give_what_exact_products_give(form: str, inner: int, outputs: int, num_rows: int) -> None:
    kernels = library()
    if not hasattr(kernels, f"ramify_linear_{form}"):
        pytest.skip("no compiled kernels here, or the processor has no instructions for them")
    torch.manual_seed(inner)
    dtype = torch.bfloat16 if form == "bfloat16" else torch.float32
    weight, bias = torch.randn(outputs, inner), torch.randn(outputs).to(dtype)
    weight = weight.to(dtype) if form != "halves" else weight.bfloat16().float()
    rows, residual = torch.randn(num_rows, inner).to(dtype), torch.randn(num_rows, outputs).to(dtype)
    layer = PanelLinear(weight, bias, kernels)
    assert (layer._panels.dtype == torch.bfloat16) == (form != "float32")
    expected = functional.linear(rows.double(), weight.double(), bias.double())
    # In bfloat16 the result is rounded, once.
    rtol = 5e-3 if form == "bfloat16" else 1e-5
    torch.testing.assert_close(layer(rows).double(), expected, rtol=rtol, atol=5e-4)
    torch.testing.assert_close(
        layer.add_to(residual, rows).double(), residual.double() + expected, rtol=rtol, atol=5e-4
    )
    alone = torch.cat([layer(rows[i : i + 1]) for i in range(num_rows)])
    assert torch.equal(alone, layer(rows)), "a row's result depends on the rows beside it"
    logits = PanelLinear(weight, bias, kernels, is_head=True)(rows)
    assert logits.dtype == torch.float32 and torch.equal(logits.to(dtype), layer(rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_odd_inner_length_and_numbers_that_are_none(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, rows = torch.randn(40, 33).to(dtype), torch.randn(5, 33).to(dtype)
    layer = make_linear(weight)
    expected = functional.linear(rows.double(), weight.double())
    torch.testing.assert_close(layer(rows).double(), expected, rtol=TOLERANCE[dtype], atol=1e-4)
    for number in (float("nan"), float("inf")):
        rows[2, 7] = number
        assert layer(rows).isfinite().all(1).tolist() == [True, True, False, True, True]
