"""What a decoder does besides its matrix products: norms, gates, rotary embeddings, KV and attention.

Three implementations of one interface: torch's operations on any device, here, for CPUs kernels that are compiled on
first use (native.py), and for GPUs Triton's (triton_operations.py), because small operations and torch's attention take
more of a step than the weights do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from ..attention.partial import choose_partial_attention
from ..attention.plan import AttentionPlan
from ..attention.tables import Table
from ..batch import Batch
from .config import ModelConfig
from .rope import rotate_


class Step(Protocol):
    """What one batch does to the KV of every layer."""

    def attend(self, fused: Tensor, layer: int, qk_norm: Tensor | None) -> Tensor:
        """Attention before the output projection, (n, num_heads * head_dim); stores the rows' keys and values.

        fused: the projected query, key and value heads, (n, (num_heads + 2 * num_kv_heads) * head_dim); used up.
        qk_norm: weights (num_heads + num_kv_heads, head_dim) of the norm of each query and key head, if there is one.
        """


class Operations(Protocol):
    """Operations of one model, on its device and in its dtype."""

    def norm(self, rows: Tensor, weight: Tensor) -> Tensor:
        """Root mean square norm of rows (n, size), times weight (size,)."""

    def gate(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up of rows (n, 2 * size), the gates before the ups: (n, size)."""

    def step(self, batch: Batch, factors: Tensor) -> Step:
        """Prepare for a batch, whose rows turn by `factors` (`rope.rotations`): complex64 (n, 1, head_dim / 2)."""


@runtime_checkable
class TableOperations(Operations, Protocol):
    """Operations whose steps are tables of numbers on the device, so that a step can be computed again with others."""

    def tables(self, batch: Batch) -> dict[str, Table]:
        """What a batch is for `step_of`, int64 and by name; all sizes that depend on it are first dimensions."""

    def step_of(self, tables: Mapping[str, Tensor], factors: Tensor, num_slots: int) -> Step:
        """The step that tables on the device say, with room for so many parts of rows."""


class TorchOperations:
    """Plain torch, on any device."""

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        self._config = config
        self._partial = choose_partial_attention(device, dtype)

    def norm(self, rows: Tensor, weight: Tensor) -> Tensor:
        """See Operations."""
        return functional.rms_norm(rows, weight.shape, weight, self._config.norm_eps)

    def gate(self, gate_up: Tensor) -> Tensor:
        """See Operations."""
        gate, up = gate_up.chunk(2, 1)
        return functional.silu(gate).mul_(up)

    def step(self, batch: Batch, factors: Tensor) -> Step:
        """See Operations."""
        return _TorchStep(self._config, AttentionPlan(batch, self._config.num_heads, self._partial), factors)


class _TorchStep:
    def __init__(self, config: ModelConfig, plan: AttentionPlan, factors: Tensor) -> None:
        self._config = config
        self._plan = plan
        self._factors = factors

    def attend(self, fused: Tensor, layer: int, qk_norm: Tensor | None) -> Tensor:
        config, num_rows = self._config, fused.shape[0]
        heads = fused.view(num_rows, -1, config.head_dim)
        turned = heads[:, : config.num_heads + config.num_kv_heads]
        if qk_norm is not None:
            normed = functional.rms_norm(turned, (config.head_dim,), eps=config.norm_eps)
            torch.mul(normed, qk_norm, out=turned)
        rotate_(turned, self._factors)
        keys_values = heads[:, config.num_heads :].view(num_rows, 2, config.num_kv_heads, config.head_dim)
        self._plan.store(keys_values, layer)
        return self._plan.attend(heads[:, : config.num_heads], layer)
