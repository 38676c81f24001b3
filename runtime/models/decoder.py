"""The decoder of the Llama family: one forward pass of a Batch, in plain tensors and functions.

Llama, Mistral, Qwen2 and Qwen3 differ only in which biases and norms exist, so a weight that an architecture lacks is
None. Query, key and value projections are one matrix, and so are the gate and up projections. KV goes straight into
the batch's extents before each layer's attention; the rows whose logits nobody wants end at the last layer's KV.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from ..batch import Batch
from ..kv_file import ModelIdentity
from ..pool import KVLayout
from ..transfer import moved
from .adapters import Adapter, row_indices
from .choice import choose_operations
from .config import ModelConfig
from .linear import Linear
from .lora import Adapters
from .native import NativeStep
from .native_layers import native_layers
from .operations import Step, TableOperations
from .replay import Capture, CudaCapture, DecodeReplays, is_in_order
from .rope import inverse_frequencies, magnitude, rotations


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
        self._adapters = Adapters(config)
        self._frequencies = inverse_frequencies(config.rope, config.head_dim).to(self.device)
        self._magnitude = magnitude(config.rope)
        # Triton launches on the current device, whichever it is.
        self._on_device: Callable[[], AbstractContextManager[object]] = (
            partial(torch.cuda.device, self.device) if self.device.type == "cuda" else nullcontext
        )
        self._operations = choose_operations(config, self.device, self.dtype)
        self._native = native_layers(self._operations, weights.layers, weights.norm)
        self._replays: DecodeReplays | None = None
        if self.device.type == "cuda" and isinstance(self._operations, TableOperations):
            self._replays = self._new_replays(self._operations, CudaCapture(self.device))

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """Takes an adapter, which batches name. Raises ModelError for one that does not fit."""
        self._adapters.add(name, adapter)

    @property
    def adapters(self) -> Mapping[str, int]:
        """The adapters' names, with what tells their KV from that of others."""
        return self._adapters.tags

    def forward(self, batch: Batch) -> Tensor:
        """Float32 logits (m, vocab_size) of the batch's logit_rows. Writes every row's KV into the batch's extents."""
        return self.logits(self.hidden(batch))

    def hidden(self, batch: Batch) -> Tensor:
        """The hidden states behind the final norm, (m, hidden_size), of the batch's logit_rows; they hold until the
        next batch. Writes every row's KV into the batch's extents.
        """
        with self._on_device(), torch.inference_mode():
            replayed = None if self._replays is None or batch.adapters else self._replays.try_run(batch)
            return self._hidden(batch) if replayed is None else replayed

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits (m, vocab_size) of such hidden states: an ordinary tensor, which may be changed in place."""
        with self._on_device():
            return self._weights.head(hidden).float()

    def _hidden(self, batch: Batch) -> Tensor:
        """The normed last hidden states (m, hidden_size) of the batch's logit_rows."""
        step = self._operations.step(batch, self._factors(moved(batch.positions, self.device)))
        is_all = batch.logit_rows.numel() == batch.token_ids.numel() and is_in_order(batch.logit_rows)
        wanted = None if is_all else moved(batch.logit_rows, self.device)
        token_ids = moved(batch.token_ids, self.device)
        if not batch.adapters:
            return self._layers(token_ids, step, wanted)
        # Adapters know their rows by number, so that none may go before the end.
        layers = self._adapters.layers(self._weights.layers, row_indices(batch.adapters, self.device))
        hidden = self._layers(token_ids, step, None, layers)
        return hidden if wanted is None else hidden[wanted]

    def _new_replays(self, operations: TableOperations, capture: Capture) -> DecodeReplays:
        def compute(tables: Mapping[str, Tensor], num_slots: int) -> Tensor:
            step = operations.step_of(tables, self._factors(tables["positions"]), num_slots)
            return self._layers(tables["token_ids"], step, None)

        return DecodeReplays(self.layout, operations.tables, compute, capture)

    def _factors(self, positions: Tensor) -> Tensor:
        return rotations(positions, self._frequencies, self._magnitude)

    def _layers(
        self, token_ids: Tensor, step: Step, logit_rows: Tensor | None, adapted: Sequence[LayerWeights] | None = None
    ) -> Tensor:
        """The normed last hidden states of these rows (None: of all). Has no look at any number on the device.

        adapted: the layers with what adapters add.
        """
        hidden = functional.embedding(token_ids, self._weights.embedding)
        if adapted is None and self._native is not None and isinstance(step, NativeStep):
            return self._native.run(hidden, step, logit_rows)
        last = self.config.num_layers - 1
        for layer, weights in enumerate(self._weights.layers if adapted is None else adapted):
            attended = self._attention(hidden, weights, layer, step)
            if layer == last and logit_rows is not None:
                hidden, attended = hidden[logit_rows], attended[logit_rows]
            hidden = weights.output.add_to(hidden, attended)
            hidden = self._mlp(hidden, weights)
        return self._operations.norm(hidden, self._weights.norm)

    def _attention(self, hidden: Tensor, weights: LayerWeights, layer: int, step: Step) -> Tensor:
        """Stores the rows' KV and returns their attention before the output projection, (n, num_heads * head_dim)."""
        normed = self._operations.norm(hidden, weights.input_norm)
        return step.attend(weights.qkv(normed), layer, weights.qk_norm)

    def _mlp(self, hidden: Tensor, weights: LayerWeights) -> Tensor:
        normed = self._operations.norm(hidden, weights.mlp_norm)
        return weights.down.add_to(hidden, self._operations.gate(weights.gate_up(normed)))
