"""Linear layers against torch's own, in every form that this machine has."""

from __future__ import annotations

import pytest
import torch
from ramify.runtime.models.linear import _can_reorder, _Panels, _Plain, _Reordered, make_linear
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


def test_bfloat16_weights_are_reordered_where_torch_can() -> None:
    if not _can_reorder():
        pytest.skip("this torch or this processor does not reorder bfloat16 weights")
    assert isinstance(make_linear(torch.ones(4, 4, dtype=torch.bfloat16)), _Reordered)


def test_a_torch_without_the_operations_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _can_reorder.cache_clear()
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    try:
        assert isinstance(make_linear(torch.ones(4, 4, dtype=torch.bfloat16)), _Plain)
    finally:
        _can_reorder.cache_clear()


@pytest.mark.parametrize("is_half", [False, True])
@pytest.mark.parametrize(("inner", "outputs"), [(1, 1), (33, 64), (32, 65), (1500, 130)])
@pytest.mark.parametrize("num_rows", [1, 6, 7, 200])
def test_panels_give_what_exact_products_give(is_half: bool, inner: int, outputs: int, num_rows: int) -> None:
    if (kernels := library()) is None:
        pytest.skip("no compiled kernels here")
    torch.manual_seed(inner)
    weight, bias = torch.randn(outputs, inner), torch.randn(outputs)
    if is_half:
        weight = weight.bfloat16().float()
    rows, residual = torch.randn(num_rows, inner), torch.randn(num_rows, outputs)
    layer = _Panels(weight, bias, kernels)
    assert layer._is_half == is_half and (layer._panels.dtype == torch.bfloat16) == is_half
    expected = functional.linear(rows.double(), weight.double(), bias.double())
    torch.testing.assert_close(layer(rows).double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        layer.add_to(residual, rows).double(), residual.double() + expected, rtol=1e-5, atol=1e-4
    )
    alone = torch.cat([layer(rows[i : i + 1]) for i in range(num_rows)])
    assert torch.equal(alone, layer(rows)), "a row's result depends on the rows beside it"
