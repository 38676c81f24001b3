"""A model of transformers as the engine wants one: a Batch in, hidden states and logits out.

All rows of a batch are one sequence to its code, in which each row says its position; only attention looks beyond a
row, and that is ours. What its code does behind the last hidden state (soft-caps, scales, biases of the head) is its
own too: the model is called with hidden states in the place of those that its decoder would compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ....ir.errors import ModelError
from ...attention.partial import choose_partial_attention
from ...attention.plan import AttentionPlan
from ...batch import Batch, Read, Write
from ...kv_file import ModelIdentity
from ...pool import Extent, KVLayout, KVPool
from ...transfer import moved
from ..adapters import Adapter, row_indices
from ..checkpoint import listed
from .adapters import HookedAdapters
from .interface import DIRECT, Call, attending, implementation
from .probe import LayerAttention


@dataclass(frozen=True, slots=True)
class HFConfig:
    """What the engine asks of a configuration, and the layers' attention."""

    architecture: str
    vocab_size: int
    context_length: int
    hidden_size: int
    layers: tuple[LayerAttention, ...]


class HFModel:
    """A causal language model of transformers. It keeps no state between calls; KV lives in the batches' extents."""

    def __init__(self, config: HFConfig, language_model: Any, layout: KVLayout, identity: ModelIdentity) -> None:
        """language_model: in evaluation mode, on the layout's device; it is changed."""
        self.config, self.layout, self.identity = config, layout, identity
        self.dtype, self.device = layout.dtype, layout.device
        self._decoder = language_model.base_model
        self._decoder.config._attn_implementation = implementation(config.architecture)
        # Where the code would make a mask, this one is taken as it is, and seen by nobody.
        self._mask = torch.zeros(1, 1, 1, 1, device=self.device) if config.architecture in DIRECT else None
        self._head = language_model
        self._adapters = HookedAdapters(language_model)
        setattr(language_model, language_model.base_model_prefix, _Given())
        self._partial = choose_partial_attention(layout.device, layout.dtype)

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """Takes an adapter, which batches name. Raises ModelError for one that does not fit."""
        self._adapters.add(name, adapter)
        # Code that takes a layer's weight and does not call the layer would leave out what is added.
        self.forward(prefix_batch(KVPool(self.layout, 1).allocate(1), [0], 0, 1, {name: [(0, 1)]}))
        if unused := sorted(adapter.deltas.keys() - self._adapters.used):
            raise ModelError(
                f"{adapter.directory} changes layers that the model's code does not call: {listed(unused)}"
            )

    @property
    def adapters(self) -> Mapping[str, int]:
        """The adapters' names, with what tells their KV from that of others."""
        return self._adapters.tags

    def forward(self, batch: Batch) -> Tensor:
        """Float32 logits (m, vocab_size) of the batch's logit_rows. Writes every row's KV into the batch's extents."""
        return self.logits(self.hidden(batch))

    def hidden(self, batch: Batch) -> Tensor:
        """The hidden states behind the final norm, (m, hidden_size), of the batch's logit_rows. Writes every row's KV
        into the batch's extents.
        """
        ids, positions = moved(batch.token_ids, self.device), moved(batch.positions, self.device)
        step = _Step(self.config.layers, self.layout, batch, self._partial)
        rows = {"input_ids": ids[None], "position_ids": positions[None], "attention_mask": self._mask}
        attends = attending(step.attend, self.config.architecture)
        with torch.inference_mode(), attends, self._adapters.on(row_indices(batch.adapters, self.device)):
            states: Tensor = self._decoder(**rows, use_cache=False)[0][0]
            return states[moved(batch.logit_rows, self.device)]

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits (m, vocab_size) of such hidden states: an ordinary tensor, which may be changed in place."""
        with torch.no_grad():
            logits: Tensor = self._head(inputs_embeds=hidden[None], use_cache=False).logits[0]
            return logits.float() if logits.dtype != torch.float32 else logits


def prefix_batch(
    extent: Extent, ids: list[int], start: int, stop: int, adapters: Mapping[str, list[tuple[int, int]]] | None = None
) -> Batch:
    """The batch that computes the tokens [start, stop) of a sequence whose KV lies in one extent; wants all logits."""
    rows = stop - start
    read, write = Read(extent, stop, [(0, rows)], True, 0), Write(extent, start, 0, rows)
    tokens, positions = torch.tensor(ids[start:stop]), torch.arange(start, stop)
    return Batch(tokens, positions, [write], [read], torch.arange(rows), adapters=adapters or {})


class _Given(torch.nn.Module):
    """In the place of a decoder: what it is given is the hidden states. Some models call a part of it."""

    @property
    def decoder(self) -> _Given:
        return self

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        return _Output(inputs_embeds)


class _Output(tuple[Tensor]):
    """The hidden states, and nothing of what else decoders may tell."""

    def __new__(cls, last_hidden_state: Tensor) -> _Output:
        return super().__new__(cls, (last_hidden_state,))

    @property
    def last_hidden_state(self) -> Tensor:
        return self[0]

    def __getattr__(self, name: str) -> None:
        return None


class _Step:
    """The attention of all layers in one batch."""

    def __init__(self, layers: tuple[LayerAttention, ...], layout: KVLayout, batch: Batch, partial: Any) -> None:
        self._layers, self._layout, self._batch, self._partial = layers, layout, batch, partial
        self._plans: dict[tuple[int | None, int], AttentionPlan] = {}

    def attend(self, call: Call) -> Tensor:
        """Stores a layer's keys and values and returns its attention, (1, n, num_heads, value_size)."""
        index = call.layer
        assert index is not None, "a layer without a number was not refused"
        layer = self._layers[index]
        plan = self._plan(layer)
        query, keys_values = (
            self._wide(call.query[0]),
            torch.stack([self._wide(call.key[0]), self._wide(call.value[0])]),
        )
        plan.store(keys_values.permute(2, 0, 1, 3), index)
        attended = plan.attend(query.transpose(0, 1).contiguous(), index, layer.rule)
        by_head = attended.view(1, len(attended), layer.num_heads, self._layout.head_dim)
        return by_head[..., : layer.value_size]

    def _plan(self, layer: LayerAttention) -> AttentionPlan:
        kind = layer.window, layer.num_heads
        if kind not in self._plans:
            self._plans[kind] = AttentionPlan(self._batch, layer.num_heads, self._partial, window=layer.window)
        return self._plans[kind]

    def _wide(self, heads: Tensor) -> Tensor:
        """Heads (heads, n, size) as wide as the cache keeps them: zeros change no product."""
        return functional.pad(heads.to(self._layout.dtype), (0, self._layout.head_dim - heads.shape[-1]))
