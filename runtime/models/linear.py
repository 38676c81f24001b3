"""A linear layer, its weights in the memory order that products with few rows read fastest.

Decoding is bound by reading weights. On a CPU torch's own product reads a bfloat16 matrix at less than half of the
memory's rate; oneDNN's, on weights that it has reordered once, comes near it. In float32 a matrix that lies column by
column is read a third faster. Results are those of `torch.nn.functional.linear`.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Linear(Protocol):
    """rows (n, in) -> (n, out)."""

    def __call__(self, rows: Tensor) -> Tensor:
        """rows @ weight.T + bias."""

    def add_to(self, residual: Tensor, rows: Tensor) -> Tensor:
        """residual + rows @ weight.T + bias."""


def make_linear(weight: Tensor, bias: Tensor | None = None, *, is_head: bool = False) -> Linear:
    """The fastest layer for a weight (out, in), and a bias (out,), on its device and in its dtype.

    is_head: the layer makes logits. In float32 its weight is left as it lies: read column by column, a row's logits
    would depend a little on how many rows there are, and a draw could come out otherwise when more is cached.
    """
    if weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _can_reorder():
        return _Reordered(weight, bias)
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and not is_head:
        weight = weight.t().contiguous().t()
    return _Plain(weight, bias)


class _Plain:
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, rows: Tensor) -> Tensor:
        return functional.linear(rows, self._weight, self._bias)

    def add_to(self, residual: Tensor, rows: Tensor) -> Tensor:
        result = torch.addmm(residual, rows, self._weight.t())
        return result if self._bias is None else result.add_(self._bias)


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
