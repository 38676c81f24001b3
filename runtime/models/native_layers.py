"""All layers of a decoder in one call of the compiled kernels.

With few rows a step of a small model is a hundred short operations, and to call each of them from Python takes as long
as most of them. The kernels and their order are those of decoder.py, so the numbers are the same to the last bit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, c_int, c_int64, c_void_p
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .linear import Linear, PanelLinear
from .native import Attention, Heads, NativeOperations, NativeStep
from .native_build import typed


class _Matrix(ctypes.Structure):
    """`Matrix` of native.cpp."""

    _fields_ = [("product", c_void_p), ("panels", c_void_p), ("bias", c_void_p), ("outputs", c_int64)]


class _Layer(ctypes.Structure):
    """`Layer` of native.cpp."""

    _fields_ = [
        *((name, c_void_p) for name in ("input_norm", "qk_norm", "mlp_norm")),
        *((name, _Matrix) for name in ("qkv", "output", "gate_up", "down")),
    ]


class _Decoder(ctypes.Structure):
    """`Decoder` of native.cpp."""

    _fields_ = [("layers", c_void_p), ("num_layers", c_int64), ("size", c_int64), ("norm", c_void_p)]


class LayerParts(Protocol):
    """What a layer is made of: see `LayerWeights`."""

    @property
    def input_norm(self) -> Tensor: ...
    @property
    def qkv(self) -> Linear: ...
    @property
    def qk_norm(self) -> Tensor | None: ...
    @property
    def output(self) -> Linear: ...
    @property
    def mlp_norm(self) -> Tensor: ...
    @property
    def gate_up(self) -> Linear: ...
    @property
    def down(self) -> Linear: ...


_ALL = -1


class _Sizes(NamedTuple):
    hidden: int
    row: int


class NativeLayers:
    """The layers of a model and its final norm. Keeps the weights that it is given by address."""

    def __init__(self, operations: NativeOperations, layers: Sequence[LayerParts], norm: Tensor) -> None:
        self._weights = (layers, norm)
        pointers = POINTER(_Decoder), POINTER(Heads), POINTER(Attention)
        self._decode = typed(operations.decode, 6, *pointers, c_int64, c_int)
        self._layers = (_Layer * len(layers))(*map(_layer, layers))
        self._decoder = _Decoder(ctypes.addressof(self._layers), len(layers), norm.numel(), norm.data_ptr())
        first = self._layers[0]
        attended, inner = operations.attended_size, first.gate_up.outputs // 2
        self._sizes = _Sizes(norm.numel(), norm.numel() + first.qkv.outputs + attended + 3 * inner)

    def run(self, hidden: Tensor, step: NativeStep, wanted: Tensor | None) -> Tensor:
        """The normed last hidden states of the rows `wanted` (None: of all), an int64 tensor of no more rows than there
        are. hidden: (n, hidden_size), contiguous; used up.
        """
        num_rows = hidden.shape[0]
        num_wanted = _ALL if wanted is None else wanted.numel()
        assert num_wanted <= num_rows, f"{num_wanted} of {num_rows} rows are wanted"
        result = hidden.new_empty(num_rows if wanted is None else num_wanted, self._sizes.hidden)
        buffer = hidden.new_empty(num_rows * self._sizes.row)
        self._decode(
            hidden.data_ptr(),
            step.factors.data_ptr(),
            step.targets.ctypes.data,
            None if wanted is None else wanted.data_ptr(),
            buffer.data_ptr(),
            result.data_ptr(),
            self._decoder,
            step.heads,
            step.attention,
            num_wanted,
            torch.get_num_threads(),
        )
        return result


def native_layers(operations: object, layers: Sequence[LayerParts], norm: Tensor) -> NativeLayers | None:
    """The layers of a model with these operations in one call, if all they need is compiled."""
    if not isinstance(operations, NativeOperations):
        return None
    linears = (each for layer in layers for each in (layer.qkv, layer.output, layer.gate_up, layer.down))
    if not all(isinstance(each, PanelLinear) for each in linears):
        return None
    return NativeLayers(operations, layers, norm)


def _layer(layer: LayerParts) -> _Layer:
    qk_norm = None if layer.qk_norm is None else layer.qk_norm.data_ptr()
    linears = (layer.qkv, layer.output, layer.gate_up, layer.down)
    return _Layer(layer.input_norm.data_ptr(), qk_norm, layer.mlp_norm.data_ptr(), *map(_matrix, linears))


def _matrix(linear: Linear) -> _Matrix:
    assert isinstance(linear, PanelLinear)
    return _Matrix(*linear.addresses)
