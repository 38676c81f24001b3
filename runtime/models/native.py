"""The decoder's operations as compiled CPU kernels: see native.cpp, and operations.py for what they mean.

Attention is planned once a batch, as tables of addresses (attention/tables.py). Every layer then is two calls.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int, c_int64, c_void_p

import torch
from torch import Tensor

from ..attention.tables import meetings, part_slots, row_targets
from ..batch import Batch
from .config import ModelConfig
from .native_build import NAMES, typed
from .operations import Step


class Heads(ctypes.Structure):
    """`Heads` of native.cpp."""

    _fields_ = [
        *((name, c_int64) for name in ("rows", "queries", "keys", "size", "layer")),
        ("eps", c_float),
    ]


class Attention(ctypes.Structure):
    """`Attention` of native.cpp."""

    _fields_ = [
        ("meetings", c_void_p),
        ("num_meetings", c_int64),
        *((name, c_void_p) for name in ("rows", "slot_begin", "slots")),
        *((name, c_int64) for name in ("num_rows", "num_heads", "num_kv_heads", "size", "query_stride", "layer")),
        ("parts", c_void_p),
        ("num_slots", c_int64),
    ]


class NativeOperations:
    """Compiled for this machine. They use as many threads as torch does.

    decode: the kernel for all layers (native_layers.py). attended_size: numbers that attention makes of a row.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, kernels: ctypes.CDLL) -> None:
        self._config = config
        name = NAMES[dtype]
        self._norm = typed(kernels[f"ramify_norm_{name}"], 3, c_int64, c_int64, c_float, c_int)
        self._gate = typed(kernels[f"ramify_gate_{name}"], 2, c_int64, c_int64, c_int)
        self._turn = typed(kernels[f"ramify_turn_{name}"], 4, POINTER(Heads), c_int)
        self._attend = typed(kernels[f"ramify_attend_{name}"], 0, POINTER(Attention), c_void_p, c_void_p, c_int)
        self.attended_size = config.num_heads * config.head_dim
        self.decode = kernels[f"ramify_decode_{name}"]
        self._last: NativeStep | None = None

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
        last = self._last
        if last is not None and last.series is batch.series is not None:
            last.go_on(batch, factors)
            return last
        self._last = NativeStep(self._config, batch, factors, self._turn, self._attend)
        return self._last


class NativeStep:
    """Holds what the kernels are given by address.

    factors: see Operations.step. targets: `row_targets`. heads, attention: for the kernels.
    """

    def __init__(
        self, config: ModelConfig, batch: Batch, factors: Tensor, turn: ctypes._FuncPointer, attend: ctypes._FuncPointer
    ) -> None:
        num_rows = batch.token_ids.numel()
        self.series = batch.series
        self._batch = batch  # whose extents are given by address
        self._turn, self._attend = turn, attend
        self.factors = factors.contiguous()
        self.targets = row_targets(batch.writes, num_rows)
        _, _, self._token_bytes = batch.writes[0].extent.place
        self.heads = Heads(num_rows, config.num_heads, config.num_kv_heads, config.head_dim, 0, config.norm_eps)
        self._meetings, self._rows = meetings(batch.reads)
        self._slot_begin, self._slots = part_slots(self._rows, num_rows)
        num_slots = len(self._rows) if len(self._slots) else 0
        self._parts = torch.empty(num_slots * config.num_heads * (config.head_dim + 1))
        self.attention = Attention(
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

    def go_on(self, batch: Batch, factors: Tensor) -> None:
        """Becomes the step of another batch of the same series."""
        num_rows, turns = len(self.targets), batch.turn - self._batch.turn
        self._batch, self.factors = batch, factors.contiguous()
        self.targets[:, 0] += turns * self._token_bytes
        self._meetings[-num_rows:, 2] += turns

    def attend(self, fused: Tensor, layer: int, qk_norm: Tensor | None) -> Tensor:
        """See Step."""
        heads, threads = self.heads, torch.get_num_threads()
        heads.layer = self.attention.layer = layer
        weight = None if qk_norm is None else qk_norm.data_ptr()
        self._turn(fused.data_ptr(), weight, self.factors.data_ptr(), self.targets.ctypes.data, heads, threads)
        attended = fused.new_empty(heads.rows, heads.queries * heads.size)
        self._attend(self.attention, fused.data_ptr(), attended.data_ptr(), threads)
        return attended
