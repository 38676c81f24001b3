"""Linear layers whose weights take 8 bits: whole numbers ("int8") or floats of 4 + 3 bits ("fp8", e4m3).

Approximate, so only on request. Each output of a weight (out, in) has a scale: its largest weight becomes the largest
value of the format, and what lies between two values is rounded to the nearer one. Rows stay in the model's dtype.

Values of both formats are exact in bfloat16. So products are taken with them as they are and an output's sum is scaled
at its end: that weights are rounded is the only error beyond those of any product.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_int64
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from ..weight_format import WeightFormat
from .linear import Linear, panel_product, panels
from .native_build import NAMES, library, typed

_DTYPES = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
_LARGEST = {"int8": 127.0, "fp8": 448.0}
# A scale below it would be no normal number; an output of zeros has it.
_LEAST_SCALE = torch.finfo(torch.float32).tiny
# Outputs that are widened at a time, so that there is never a wide copy of a whole matrix.
_OUTPUTS = 512


@dataclass(frozen=True, slots=True)
class Quantized:
    """A weight as values (out, in) of a format, and a float32 scale (out,): weight = values * scale, nearly."""

    format: WeightFormat
    values: Tensor
    scale: Tensor

    def dequantized(self) -> Tensor:
        """The weight that it stands for, (out, in) in float32."""
        return self.values.float() * self.scale[:, None]


def quantize(weight: Tensor, weights: WeightFormat) -> Quantized:
    """A finite weight (out, in), each output rounded to the nearest values."""
    values = torch.empty(weight.shape, dtype=_DTYPES[weights], device=weight.device)
    scale = torch.empty(weight.shape[0], device=weight.device)
    largest = _LARGEST[weights]
    for some, part, factors in zip(*(_blocks(each) for each in (values, weight, scale)), strict=True):
        wide = part.float()
        factors.copy_((wide.abs().amax(1) / largest).clamp_min_(_LEAST_SCALE))
        wide = (wide / factors[:, None]).clamp_(-largest, largest)
        some.copy_(wide.round_() if weights == "int8" else wide)
    return Quantized(weights, values, scale)


def _blocks(outputs: Tensor) -> tuple[Tensor, ...]:
    """A few outputs at a time."""
    return torch.split(outputs, _OUTPUTS)


def quantized_bytes(shape: tuple[int, ...]) -> int:
    """What a weight (out, in) takes in either format: a byte a number, and the scales."""
    return prod(shape) + shape[0] * torch.float32.itemsize


def make_quantized_linear(weight: Tensor, bias: Tensor | None, weights: WeightFormat) -> Linear:
    """The fastest layer for a finite weight (out, in) and a bias (out,) on its device, with the weight in a format."""
    quantized = quantize(weight, weights)
    if weight.device.type == "cpu" and (kernels := library()) is not None:
        return _BytePanels(quantized, bias, kernels)
    if weight.device.type == "cuda" and find_spec("triton") is not None:
        return _BytesInRegisters(quantized, bias)
    return _Widened(quantized, bias)


class _Widened:
    """With torch's operations, on any device: some outputs at a time, widened for as long as their product takes."""

    def __init__(self, weight: Quantized, bias: Tensor | None) -> None:
        self._values = _blocks(weight.values)
        self._scale = weight.scale
        self._bias = None if bias is None else bias.float()

    def __call__(self, rows: Tensor) -> Tensor:
        return self._product(rows).to(rows.dtype)

    def add_to(self, residual: Tensor, rows: Tensor) -> Tensor:
        return (self._product(rows) + residual).to(rows.dtype)

    def _product(self, rows: Tensor) -> Tensor:
        # Sums are not scaled yet, and may be beyond what float16 can hold.
        taken = rows.float() if rows.dtype == torch.float16 else rows
        sums = torch.cat([functional.linear(taken, values.to(taken.dtype)) for values in self._values], 1)
        result = sums.float() * self._scale
        return result if self._bias is None else result + self._bias


class _BytePanels:
    """For the compiled kernels, values in panels (panels, in, 64). A row's result does not depend on other rows."""

    def __init__(self, weight: Quantized, bias: Tensor | None, kernels: ctypes.CDLL) -> None:
        self._outputs = weight.values.shape[0]
        self._panels = panels(weight.values.view(torch.uint8))
        self._scale = weight.scale
        self._bias = None if bias is None else bias.float()
        self._kernels = {
            dtype: typed(kernels[f"ramify_linear_{name}_{weight.format}"], 6, c_int64, c_int64, c_int64, c_int)
            for dtype, name in NAMES.items()
        }

    def __call__(self, rows: Tensor) -> Tensor:
        return self._product(rows, None)

    def add_to(self, residual: Tensor, rows: Tensor) -> Tensor:
        return self._product(rows, residual)

    def _product(self, rows: Tensor, residual: Tensor | None) -> Tensor:
        if rows.dtype not in NAMES:
            return self._product(rows.float(), None if residual is None else residual.float()).to(rows.dtype)
        residual = None if residual is None else residual.contiguous()
        operands = (self._panels, self._scale, self._bias, residual)
        result = rows.new_empty(len(rows), self._outputs)
        return panel_product(self._kernels[rows.dtype], rows, result, *operands)


class _BytesInRegisters:
    """By a Triton kernel, on a GPU; on a CPU in Triton's interpreter, for tests. Needs triton."""

    def __init__(self, weight: Quantized, bias: Tensor | None) -> None:
        # Triton reads its settings when it is imported, which a process without a GPU need not wait for.
        from ..kernels.linear import byte_linear

        device = weight.values.device
        is_gpu = device.type == "cuda"
        self._num_processors = torch.cuda.get_device_properties(device).multi_processor_count if is_gpu else 1
        self._weight = weight
        self._bias = bias
        self._linear = byte_linear

    def __call__(self, rows: Tensor) -> Tensor:
        return self._product(rows, None)

    def add_to(self, residual: Tensor, rows: Tensor) -> Tensor:
        return self._product(rows, residual.contiguous())

    def _product(self, rows: Tensor, residual: Tensor | None) -> Tensor:
        weight = self._weight
        return self._linear(rows, weight.values, weight.scale, self._bias, residual, self._num_processors)
