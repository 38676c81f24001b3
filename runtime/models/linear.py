"""A linear layer, its weights in the memory order that products with few rows read fastest.

Decoding is bound by reading weights. On a CPU torch's own product reads a bfloat16 matrix at less than half of the
memory's rate. The compiled kernels (native.cpp) come near it, with panels of weights that they read from end to end;
float32 weights that bfloat16 can hold they keep as such: half the memory for the same result. They multiply bfloat16
where the processor has instructions for pairs of them (AVX512_BF16) and no tiles (AMX), which oneDNN knows better how
to use: that is next, on weights that it has reordered once. Results are those of `torch.nn.functional.linear`.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_int64
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .native_build import library, typed

# Outputs of a panel: `kTile` of native.cpp.
_PANEL = 64


class Linear(Protocol):
    """rows (n, in) -> (n, out)."""

    def __call__(self, rows: Tensor) -> Tensor:
        """rows @ weight.T + bias."""

    def add_to(self, residual: Tensor, rows: Tensor) -> Tensor:
        """residual + rows @ weight.T + bias; the residual is used up."""


def make_linear(weight: Tensor, bias: Tensor | None = None, *, is_head: bool = False) -> Linear:
    """The fastest layer for a weight (out, in), and a bias (out,), on its device and in its dtype.

    is_head: the layer makes logits, which may come in float32 rather than rounded. In float32, without the kernels, its
    weight is left as it lies: read column by column, a row's logits would depend a little on how many rows there are,
    and a draw could come out otherwise when more is cached.
    """
    if weight.device.type == "cpu" and (kernels := _kernels_for(weight)) is not None:
        return PanelLinear(weight, bias, kernels, is_head=is_head)
    if weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _can_reorder():
        return _Reordered(weight, bias)
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and not is_head:
        weight = weight.t().contiguous().t()
    return _Plain(weight, bias)


def _kernels_for(weight: Tensor) -> ctypes.CDLL | None:
    """The compiled kernels, where they are there and the fastest for such a weight."""
    kernels = library()
    if kernels is None or weight.dtype == torch.float32:
        return kernels
    serve = weight.dtype == torch.bfloat16 and weight.shape[1] % 2 == 0 and hasattr(kernels, "ramify_linear_bfloat16")
    return kernels if serve and not _has_tiles() else None


class _Plain:
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, rows: Tensor) -> Tensor:
        return functional.linear(rows, self._weight, self._bias)

    def add_to(self, residual: Tensor, rows: Tensor) -> Tensor:
        # On a GPU in place, since torch copies the residual first otherwise.
        add = residual.addmm_ if residual.is_cuda else residual.addmm
        result = add(rows, self._weight.t())
        return result if self._bias is None else result.add_(self._bias)


class PanelLinear:
    """Weights in panels of 64 outputs for the compiled kernels. A row's result does not depend on other rows.

    A panel goes (in, 64); in bfloat16 (in / 2, 64, 2), as the kernel multiplies two numbers at once. What a head gives
    is float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, kernels: ctypes.CDLL, *, is_head: bool = False) -> None:
        self._outputs = weight.shape[0]
        self._bias = bias
        self._dtype = torch.float32 if is_head else weight.dtype
        kernel, per_word = "linear_float32", 1
        if weight.dtype == torch.bfloat16:
            kernel, per_word = "logits_bfloat16" if is_head else "linear_bfloat16", 2
        elif torch.equal(weight.bfloat16().float(), weight):
            kernel, weight = "linear_halves", weight.bfloat16()
        self._panels = panels(weight, per_word)
        self._linear = typed(kernels[f"ramify_{kernel}"], 5, c_int64, c_int64, c_int64, c_int)

    @property
    def addresses(self) -> tuple[int | None, int, int | None, int]:
        """For the kernels themselves: that of the product, the panels and the bias; and the number of outputs."""
        bias = None if self._bias is None else self._bias.data_ptr()
        return ctypes.cast(self._linear, ctypes.c_void_p).value, self._panels.data_ptr(), bias, self._outputs

    def __call__(self, rows: Tensor) -> Tensor:
        return self._product(rows, None)

    def add_to(self, residual: Tensor, rows: Tensor) -> Tensor:
        return self._product(rows, residual.contiguous())

    def _product(self, rows: Tensor, residual: Tensor | None) -> Tensor:
        result = rows.new_empty(len(rows), self._outputs, dtype=self._dtype)
        return panel_product(self._linear, rows, result, self._panels, self._bias, residual)


def panels(weight: Tensor, per_word: int = 1) -> Tensor:
    """A weight (out, in) as the compiled kernels read it: (panels, in / per_word, 64, per_word), zeros beyond `out`."""
    outputs, inner = weight.shape
    if missing := -outputs % _PANEL:
        weight = functional.pad(weight, (0, 0, 0, missing))
    return weight.view(-1, _PANEL, inner // per_word, per_word).transpose(1, 2).contiguous()


def panel_product(kernel: ctypes._FuncPointer, rows: Tensor, result: Tensor, *operands: Tensor | None) -> Tensor:
    """Has a compiled kernel write into `result` (n, out) what it makes of rows (n, in) and contiguous operands."""
    rows = rows.contiguous()
    addresses = [None if each is None else each.data_ptr() for each in (rows, *operands, result)]
    kernel(*addresses, *rows.shape, result.shape[1], torch.get_num_threads())
    return result


class _Reordered:
    """Weights in oneDNN's own order, which no other operation can read."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self._bias = bias

    def __call__(self, rows: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, "none", [], "")
        return result

    def add_to(self, residual: Tensor, rows: Tensor) -> Tensor:
        binary = torch.ops.mkldnn._linear_pointwise.binary
        result: Tensor = binary(rows, residual, self._weight, self._bias, "add")
        return result


@cache
def _has_tiles() -> bool:
    """Whether the processor multiplies tiles of bfloat16 (AMX), as far as Linux tells."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


@cache
def _can_reorder() -> bool:
    """Whether torch has these operations here, and they do what they did: they are not part of its public interface."""
    try:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        weight = torch.arange(-32, 32, dtype=torch.bfloat16).view(4, 16) / 8
        rows, residual = weight[:2] + 1, weight[:2, :4]
        layer, plain = _Reordered(weight, weight[0, :4]), _Plain(weight, weight[0, :4])
        return torch.allclose(layer(rows), plain(rows)) and torch.allclose(
            layer.add_to(residual, rows), plain.add_to(residual, rows), rtol=0.02
        )
    except (AttributeError, RuntimeError):
        return False
