"""The decoder of the Llama family: one forward pass of a Batch, in plain tensors and functions.

Llama, Mistral, Qwen2 and Qwen3 differ only in which biases and norms exist, so a weight that an architecture lacks is
None. Query, key and value projections are one matrix, and so are the gate and up projections. KV goes straight into
the batch's extents before each layer's attention; the rows whose logits nobody wants end at the last layer's KV.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..attention.partial import choose_partial_attention
from ..attention.plan import AttentionPlan
from ..batch import Batch
from ..kv_file import ModelIdentity
from ..pool import KVLayout
from .config import ModelConfig
from .linear import Linear
from .rope import inverse_frequencies, magnitude, rotate_, rotations


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer. The pairs that rotary embeddings turn lie side by side in q and k.

    qkv: query, key, value heads in this order. qk_norm: (num_heads + num_kv_heads, head_dim). gate_up: gate, then up.
    """

    input_norm: Tensor
    qkv: Linear
    qk_norm: Tensor | None
    output: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights of a model. embedding: (vocab_size, hidden_size); the head may have the same numbers."""

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    head: Linear


class Model:
    """A loaded decoder. It keeps no state of its own between calls; KV lives in the batches' extents."""

    def __init__(self, config: ModelConfig, weights: Weights, identity: ModelIdentity) -> None:
        self.config = config
        self.identity = identity
        self.dtype = weights.embedding.dtype
        self.device = weights.embedding.device
        self.layout = KVLayout(config.num_layers, config.num_kv_heads, config.head_dim, self.dtype, self.device)
        self._weights = weights
        self._frequencies = inverse_frequencies(config.rope, config.head_dim).to(self.device)
        self._magnitude = magnitude(config.rope)
        self._partial = choose_partial_attention(self.device, self.dtype)

    def forward(self, batch: Batch) -> Tensor:
        """Float32 logits (m, vocab_size) of the batch's logit_rows. Writes every row's KV into the batch's extents."""
        with torch.inference_mode():
            hidden = self._hidden(batch)
        # Outside, so that callers get an ordinary tensor, which they may change in place.
        return self._weights.head(hidden).float()

    def _hidden(self, batch: Batch) -> Tensor:
        """The normed last hidden states (m, hidden_size) of the batch's logit_rows."""
        plan = AttentionPlan(batch, self.config.num_heads, self._partial)
        factors = rotations(batch.positions.to(self.device), self._frequencies, self._magnitude)
        hidden = functional.embedding(batch.token_ids.to(self.device), self._weights.embedding)
        last = self.config.num_layers - 1
        for layer, weights in enumerate(self._weights.layers):
            attended = self._attention(hidden, weights, layer, plan, factors)
            if layer == last:
                rows = batch.logit_rows.to(self.device)
                hidden, attended = hidden[rows], attended[rows]
            hidden = weights.output.add_to(hidden, attended)
            hidden = self._mlp(hidden, weights)
        return self._norm(hidden, self._weights.norm)

    def _attention(
        self, hidden: Tensor, weights: LayerWeights, layer: int, plan: AttentionPlan, factors: Tensor
    ) -> Tensor:
        """Stores the rows' KV and returns their attention before the output projection, (n, num_heads * head_dim)."""
        config, num_rows = self.config, hidden.shape[0]
        fused = weights.qkv(self._norm(hidden, weights.input_norm))
        heads = fused.view(num_rows, -1, config.head_dim)
        turned = heads[:, : config.num_heads + config.num_kv_heads]
        if weights.qk_norm is not None:
            normed = functional.rms_norm(turned, (config.head_dim,), eps=config.norm_eps)
            torch.mul(normed, weights.qk_norm, out=turned)
        rotate_(turned, factors)
        plan.store(heads[:, config.num_heads :].view(num_rows, 2, config.num_kv_heads, config.head_dim), layer)
        return plan.attend(heads[:, : config.num_heads], layer)

    def _mlp(self, hidden: Tensor, weights: LayerWeights) -> Tensor:
        gate, up = weights.gate_up(self._norm(hidden, weights.mlp_norm)).chunk(2, 1)
        return weights.down.add_to(hidden, functional.silu(gate).mul_(up))

    def _norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(hidden, weight.shape, weight, self.config.norm_eps)
