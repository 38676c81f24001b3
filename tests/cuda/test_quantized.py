"""Models with weights of 8 bits: their logits are those of the rounded weights, on whatever device."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from ramify.runtime.models import load_model
from ramify.runtime.models.quantized import make_quantized_linear, quantize
from ramify.runtime.weight_format import FORMATS, WeightFormat
from safetensors.torch import load_file, save_file

from .test_models import TOLERANCE, logits, save

MATRIX = re.compile(r"model\.layers\.\d+\.\w+\.\w+_proj\.weight")


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("format", FORMATS)
def test_logits_are_those_of_the_rounded_weights(
    device: torch.device, format: WeightFormat, dtype: torch.dtype, tmp_path: Path
) -> None:
    save(tmp_path, "qwen3", torch.float32)
    found = logits(load_model(tmp_path, dtype=dtype, device=device, weights=format), list(range(50)), [40, 3, 1, 6])
    held = load_file(tmp_path / "model.safetensors")
    for name in filter(MATRIX.fullmatch, list(held)):
        held[name] = quantize(held[name].to(dtype), format).dequantized()
    save_file(held, tmp_path / "model.safetensors", metadata={"format": "pt"})
    expected = logits(load_model(tmp_path), list(range(50)), [50])
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=2 * TOLERANCE[dtype])


@pytest.mark.parametrize("num_rows", [1, 40, 300])
@pytest.mark.parametrize("format", FORMATS)
def test_layers_of_a_real_size(device: torch.device, format: WeightFormat, num_rows: int) -> None:
    torch.manual_seed(num_rows)
    weight = torch.randn(3072, 1024)
    layer = make_quantized_linear(weight.to(device, torch.bfloat16), None, format)
    rows = torch.randn(num_rows, 1024).bfloat16()
    expected = rows.float() @ quantize(weight.bfloat16(), format).dequantized().t()
    found = layer(rows.to(device))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float().cpu(), expected, rtol=1e-2, atol=0.1)
