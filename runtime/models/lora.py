"""Adapters of a decoder of the Llama family: its layers with what adapters add to the rows that have one.

A layer's product with all rows is made as ever, so rows without an adapter have the same results to the last bit beside
rows that have one; then each adapter's part is added to its rows (as in S-LoRA, arXiv 2311.03285, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from .adapters import Adapter, Delta, add_to_rows, check_layers, check_sizes
from .config import ModelConfig
from .linear import Linear
from .rope import interleave_pairs

if TYPE_CHECKING:
    from .decoder import LayerWeights


class _Place(NamedTuple):
    """Where a checkpoint's layer is in ours: outputs [start, start + size[0]) of one of the fused ones."""

    layer: int
    linear: str
    start: int
    size: tuple[int, int]
    is_turned: bool


class _Part(NamedTuple):
    delta: Delta
    start: int


class Adapters:
    """The adapters of a model, by name."""

    def __init__(self, config: ModelConfig) -> None:
        self._head_dim = config.head_dim
        self._places = _places(config)
        # By adapter, layer and linear.
        self._parts: dict[str, dict[tuple[int, str], list[_Part]]] = {}
        self.tags: dict[str, int] = {}

    def add(self, name: str, adapter: Adapter) -> None:
        """Takes an adapter. Raises ModelError for one that does not fit the model."""
        check_layers(adapter, self._places)
        parts: dict[tuple[int, str], list[_Part]] = {}
        for layer, delta in adapter.deltas.items():
            place = self._places[layer]
            check_sizes(adapter, layer, place.size)
            up = interleave_pairs(delta.up, self._head_dim).contiguous() if place.is_turned else delta.up
            parts.setdefault((place.layer, place.linear), []).append(_Part(Delta(delta.down, up), place.start))
        self._parts[name] = parts
        self.tags[name] = adapter.tag

    def layers(self, layers: tuple[LayerWeights, ...], rows: Mapping[str, Tensor]) -> list[LayerWeights]:
        """The layers for a step in which these rows, int64, have these adapters."""
        return [self._layer(layer, number, rows) for number, layer in enumerate(layers)]

    def _layer(self, layer: LayerWeights, number: int, rows: Mapping[str, Tensor]) -> LayerWeights:
        def adapted(linear: str) -> Linear:
            own = [(index, self._parts[name].get((number, linear), [])) for name, index in rows.items()]
            base: Linear = getattr(layer, linear)
            return _Adapted(base, own) if any(parts for _, parts in own) else base

        return replace(
            layer,
            qkv=adapted("qkv"),
            output=adapted("output"),
            gate_up=adapted("gate_up"),
            down=adapted("down"),
        )


@dataclass(frozen=True, slots=True)
class _Adapted:
    """A linear layer with what adapters add to some rows of one step."""

    base: Linear
    own: list[tuple[Tensor, list[_Part]]]

    def __call__(self, rows: Tensor) -> Tensor:
        return self._added(self.base(rows), rows)

    def add_to(self, residual: Tensor, rows: Tensor) -> Tensor:
        return self._added(self.base.add_to(residual, rows), rows)

    def _added(self, result: Tensor, rows: Tensor) -> Tensor:
        for index, parts in self.own:
            for delta, start in parts:
                add_to_rows(result.narrow(1, start, delta.up.shape[0]), rows, index, delta)
        return result


def _places(config: ModelConfig) -> dict[str, _Place]:
    """Every linear layer of the blocks by its name in checkpoints."""
    hidden, inner = config.hidden_size, config.intermediate_size
    query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    each = {
        "self_attn.q_proj": ("qkv", 0, (query, hidden), True),
        "self_attn.k_proj": ("qkv", query, (key, hidden), True),
        "self_attn.v_proj": ("qkv", query + key, (key, hidden), False),
        "self_attn.o_proj": ("output", 0, (hidden, query), False),
        "mlp.gate_proj": ("gate_up", 0, (inner, hidden), False),
        "mlp.up_proj": ("gate_up", inner, (inner, hidden), False),
        "mlp.down_proj": ("down", 0, (hidden, inner), False),
    }
    return {
        f"model.layers.{layer}.{name}": _Place(layer, *place)
        for layer in range(config.num_layers)
        for name, place in each.items()
    }
