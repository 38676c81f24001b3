"""What a model's layers want of attention, learned by running it once without weights or numbers.

A model is made on torch's meta device, where tensors have shapes only, and run on three tokens. What its layers call
attention with says all that the runtime has to know; a model that wants something we do not do, or that keeps a state
besides keys and values, is refused by name before anything is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....ir.errors import ModelError
from ...attention.partial import ScoreRule
from .interface import DIRECT, Call, ProbeMask, attending, implementation, probe_mask

_NUM_TOKENS = 3


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """One layer. key_size, value_size: numbers of a head. window: how many tokens it sees; None is all."""

    num_heads: int
    num_kv_heads: int
    key_size: int
    value_size: int
    rule: ScoreRule
    window: int | None


class _Refused(Exception):
    """Why a model cannot run here."""


def probe(config: Any, make: type[Any], where: str) -> tuple[LayerAttention, ...]:
    """The layers of the model that `make` makes of a configuration, in order. Raises ModelError with the reason.

    where: names the architecture and its config.json.
    """
    try:
        return _probed(config, make)
    except _Refused as reason:
        raise ModelError(f"{where} is not supported: {reason}", help=_HELP) from None


_HELP = "docs/backends.md lists the architectures that run here; others can run behind a server (openai:MODEL@URL)"


def _probed(config: Any, make: type[Any]) -> tuple[LayerAttention, ...]:
    found: dict[int, Call] = {}

    def attend(call: Call) -> Tensor:
        if call.layer is None or call.layer in found:
            raise _Refused(f"{call.who} does not attend once in a layer")
        found[call.layer] = call
        return call.query.new_empty(1, call.query.shape[2], call.query.shape[1], call.value.shape[3])

    architecture = make.__name__
    config._attn_implementation = implementation(architecture, probes=True)
    config._experts_implementation = "batched_mm"  # the others look at numbers
    try:
        with torch.device("meta"), torch.no_grad():
            decoder = make(config).eval().base_model
            ids = torch.zeros(1, _NUM_TOKENS, dtype=torch.int64)
            places = torch.arange(_NUM_TOKENS)[None]
            mask = torch.ones_like(ids)
            if architecture in DIRECT:
                mask = probe_mask(lambda batch, head, query, key: key <= query, _NUM_TOKENS)
            with attending(attend, architecture):
                decoder(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=False)
    except _Refused:
        raise
    except Exception as error:
        raise _Refused(f"its code does not take our attention ({type(error).__name__}: {error})") from error
    num_layers = getattr(config, "num_hidden_layers", len(found))
    if sorted(found) != list(range(num_layers)):
        raise _Refused(
            f"{num_layers - len(found)} of its {num_layers} layers do not ask transformers for attention: they keep a "
            "state of another kind, or attend by code of their own"
        )
    return tuple(_layer(found[index], _longest(config)) for index in range(num_layers))


def _longest(config: Any) -> int:
    return int(getattr(config, "max_position_embeddings", None) or 2048)


def _layer(call: Call, longest: int) -> LayerAttention:
    if call.others:
        raise _Refused(f"its attention wants {', '.join(sorted(call.others))}, which is not done here")
    if call.mask is None:
        raise _Refused("it does not say what its layers may see")
    if not isinstance(call.mask, ProbeMask):
        raise _Refused("it adds to its attention mask, as position biases (ALiBi) do")
    window = _window(call.mask, longest)
    if call.window is not None and call.window != window and (window is not None or call.window < longest):
        raise _Refused(f"a layer asks for a window of {call.window} tokens and its mask has {window or 'none'}")
    (_, num_heads, _, key_size), (_, num_kv_heads, _, value_size) = call.query.shape, call.value.shape
    return LayerAttention(
        num_heads, num_kv_heads, key_size, value_size, ScoreRule(call.scaling, call.cap or None), window
    )


def _window(mask: ProbeMask, longest: int) -> int | None:
    """How many tokens the last of the longest sequence sees. Raises _Refused for a mask of another kind."""
    key = torch.arange(longest + 1)
    seen = {query: _seen(mask, query, key) for query in {0, 1, longest // 3, longest // 2, longest - 1}}
    widths = [int(row.sum()) for row in seen.values()]
    window = max(widths)
    for query, row in seen.items():
        if not torch.equal(row, (key <= query) & (key > query - window)):
            raise _Refused("its mask is neither causal nor that of a sliding window")
    return None if window >= longest else window


def _seen(mask: ProbeMask, query: int, key: Tensor) -> Tensor:
    zero = torch.zeros((), dtype=torch.int64)
    row = mask.says(zero, zero, torch.full_like(key, query), key)
    return torch.as_tensor(row).expand(key.shape)
