"""The decoder's operations as compiled CPU kernels: see native.cpp, and operations.py for what they mean.

Attention is planned once a batch: every read of a node becomes a *meeting* of query rows with its keys, and rows with
several meetings have a part of the result from each, merged by their log-sum-exps. Every layer then is two calls.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, c_float, c_int, c_int64, c_void_p

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch, Read, Write
from .config import ModelConfig
from .native_build import library, typed
from .operations import Operations, Step, TorchOperations

_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class _Heads(ctypes.Structure):
    """`Heads` of native.cpp."""

    _fields_ = [
        *((name, c_int64) for name in ("rows", "queries", "keys", "size", "layer")),
        ("eps", c_float),
    ]


class _Attention(ctypes.Structure):
    """`Attention` of native.cpp."""

    _fields_ = [
        ("meetings", c_void_p),
        ("num_meetings", c_int64),
        *((name, c_void_p) for name in ("rows", "slot_begin", "slots")),
        *((name, c_int64) for name in ("num_rows", "num_heads", "num_kv_heads", "size", "query_stride", "layer")),
        ("parts", c_void_p),
        ("num_slots", c_int64),
    ]


def choose_operations(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Operations:
    """The fastest operations that serve a model on this device, in this dtype."""
    if device.type == "cpu" and dtype in _NAMES and (kernels := library()) is not None:
        return NativeOperations(config, dtype, kernels)
    return TorchOperations(config, device, dtype)


class NativeOperations:
    """Compiled for this machine. They use as many threads as torch does."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, kernels: ctypes.CDLL) -> None:
        self._config = config
        name = _NAMES[dtype]
        self._norm = typed(kernels[f"ramify_norm_{name}"], 3, c_int64, c_int64, c_float, c_int)
        self._gate = typed(kernels[f"ramify_gate_{name}"], 2, c_int64, c_int64, c_int)
        self._turn = typed(kernels[f"ramify_turn_{name}"], 4, POINTER(_Heads), c_int)
        self._attend = typed(kernels[f"ramify_attend_{name}"], 0, POINTER(_Attention), c_void_p, c_void_p, c_int)

    def norm(self, rows: Tensor, weight: Tensor) -> Tensor:
        """See Operations."""
        rows = rows.contiguous()
        normed = torch.empty_like(rows)
        threads = torch.get_num_threads()
        self._norm(rows.data_ptr(), weight.data_ptr(), normed.data_ptr(), *rows.shape, self._config.norm_eps, threads)
        return normed

    def gate(self, gate_up: Tensor) -> Tensor:
        """See Operations."""
        num_rows, size = gate_up.shape[0], gate_up.shape[1] // 2
        gated = gate_up.new_empty(num_rows, size)
        self._gate(gate_up.data_ptr(), gated.data_ptr(), num_rows, size, torch.get_num_threads())
        return gated

    def step(self, batch: Batch, factors: Tensor) -> Step:
        """See Operations."""
        return _NativeStep(self._config, batch, factors, self._turn, self._attend)


class _NativeStep:
    """Holds what the kernels are given by address."""

    def __init__(
        self, config: ModelConfig, batch: Batch, factors: Tensor, turn: ctypes._FuncPointer, attend: ctypes._FuncPointer
    ) -> None:
        num_rows = batch.token_ids.numel()
        self._batch = batch  # whose extents are given by address
        self._turn, self._attend = turn, attend
        self._factors = factors.contiguous()
        self._targets = _targets(batch.writes, num_rows)
        self._heads = _Heads(num_rows, config.num_heads, config.num_kv_heads, config.head_dim, 0, config.norm_eps)
        self._meetings, self._rows = _meetings(batch.reads)
        self._slot_begin, self._slots = _slots(self._rows, num_rows)
        num_slots = len(self._rows) if len(self._slots) else 0
        self._parts = torch.empty(num_slots * config.num_heads * (config.head_dim + 1))
        self._attention = _Attention(
            self._meetings.ctypes.data,
            len(self._meetings),
            self._rows.ctypes.data,
            self._slot_begin.ctypes.data,
            self._slots.ctypes.data,
            num_rows,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            (config.num_heads + 2 * config.num_kv_heads) * config.head_dim,
            0,
            self._parts.data_ptr(),
            num_slots,
        )

    def attend(self, fused: Tensor, layer: int, qk_norm: Tensor | None) -> Tensor:
        """See Step."""
        heads, threads = self._heads, torch.get_num_threads()
        heads.layer = self._attention.layer = layer
        weight = None if qk_norm is None else qk_norm.data_ptr()
        self._turn(fused.data_ptr(), weight, self._factors.data_ptr(), self._targets.ctypes.data, heads, threads)
        attended = fused.new_empty(heads.rows, heads.queries * heads.size)
        self._attend(self._attention, fused.data_ptr(), attended.data_ptr(), threads)
        return attended


def _targets(writes: Sequence[Write], num_rows: int) -> np.ndarray:
    """For each row where its keys go in layer 0, an address, and how far heads are apart: int64 (num_rows, 2)."""
    targets = np.empty((num_rows, 2), np.int64)
    for write in writes:
        span = write.extent.span(write.offset, write.stop - write.start)
        token_bytes = span.stride(3) * span.element_size()
        targets[write.start : write.stop, 0] = span.data_ptr() + token_bytes * np.arange(write.stop - write.start)
        targets[write.start : write.stop, 1] = span.stride(2)
    return targets


def _meetings(reads: Sequence[Read]) -> tuple[np.ndarray, np.ndarray]:
    """`Meeting`s of native.cpp, int64 (len(reads), 7), and the rows of all of them one after the other, int32."""
    meetings = np.empty((len(reads), 7), np.int64)
    rows: list[int] = []
    for meeting, read in zip(meetings, reads, strict=True):
        span = read.extent.span(0, read.length)
        first = len(rows)
        for start, stop in read.rows:
            rows += range(start, stop)
        meeting[:] = (span.data_ptr(), span.stride(2), read.length, read.causal, first, len(rows) - first, first)
    return meetings, np.array(rows, np.int32)


def _slots(rows: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each row's parts lie among those of all meetings: the slots of row i are slots[begin[i] : begin[i + 1]].

    A row with one part has no slots. Parts of a row are in the order of its meetings.
    """
    counts = np.bincount(rows, minlength=num_rows)
    assert counts.all(), "a row of the batch reads nothing, not even itself"
    by_row = np.argsort(rows, kind="stable")
    slots = by_row[counts[rows[by_row]] > 1]
    begin = np.zeros(num_rows + 1, np.int64)
    np.cumsum(np.where(counts > 1, counts, 0), out=begin[1:])
    return begin, np.ascontiguousarray(slots, np.int64)
