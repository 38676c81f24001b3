"""Processors for `gen(processors=[...])`: the model's distribution steered by a scorer, or multiplied by a grounding.

`controlled` is token-wise controlled decoding (arXiv 2310.17022, section 3.1; block-wise see blocks.py), `grounded` is
grounded decoding (arXiv 2303.00855). Both work on raw logits, so temperature and filters apply to what they make.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..ir.errors import UsageError
from ..runtime.request import Processor

# (token ids so far, candidate token ids) -> the value of the prefix with each candidate, (candidates,)
PrefixScorer = Callable[[Tensor, Tensor], Tensor]
# (token ids so far) -> the probability of each next token, (vocab,), or proportional to it
Grounding = Callable[[Tensor], Tensor]


def batched(processor: Any) -> Any:
    """Marks a processor that is called once a step for all rows that have it.

    It gets a list of the rows' token ids and their logits (rows, vocab), and edits these or returns others.
    """
    processor.batched = True
    return processor


def controlled(scorer: PrefixScorer, strength: float = 1.0, *, top_k: int | None = None) -> Processor:
    """Draws token z after y from p(z | y) * exp(strength * V(yz)), normalized.

    scorer: V. `scorer(token_ids, candidates)`, both LongTensors, gives the value of the tokens so far with each
    candidate behind them, a float tensor (candidates,). top_k: only the likeliest k tokens are candidates, and nothing
    else is drawn; None is the whole vocabulary. Raises UsageError for numbers and functions that are none.
    """
    _check_callable("the scorer", scorer)
    if not isinstance(strength, int | float) or not math.isfinite(strength):
        raise UsageError(f"strength is a finite number, not {strength!r}")
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise UsageError(f"top_k is at least 1, or None for the whole vocabulary; got {top_k!r}")

    def control(token_ids: Tensor, logits: Tensor) -> Tensor:
        count = len(logits) if top_k is None else min(top_k, len(logits))
        candidates = torch.arange(count, device=logits.device) if count == len(logits) else logits.topk(count).indices
        values = _row(scorer(token_ids, candidates), candidates, "the scorer")
        steered = torch.full_like(logits, -torch.inf)
        steered[candidates] = logits[candidates] + strength * values
        return steered

    control.__qualname__ = f"controlled({_name(scorer)})"
    return control


def grounded(*groundings: Grounding) -> Processor:
    """Draws a token from the product of the model's and the groundings' probabilities, normalized.

    Each `grounding(token_ids)` gives the probability of every next token, a float tensor (vocab,); what has none is
    never emitted, the end of the generation included. Factors need not sum to 1. Raises UsageError for no grounding.
    """
    if not groundings:
        raise UsageError("grounded() needs at least one grounding")
    for each in groundings:
        _check_callable("a grounding", each)

    def ground(token_ids: Tensor, logits: Tensor) -> Tensor:
        for grounding in groundings:
            factors = _row(grounding(token_ids), logits, f"the grounding {_name(grounding)}")
            if (factors < 0).any() or factors.isinf().any():
                raise ValueError(f"the grounding {_name(grounding)} gave a factor that is no probability")
            logits = logits + factors.log()
        return logits

    ground.__qualname__ = f"grounded({', '.join(map(_name, groundings))})"
    return ground


def _check_callable(who: str, given: object) -> None:
    if not callable(given):
        raise UsageError(f"{who} is a function, not {type(given).__name__}: {given!r}")


def _row(values: Any, like: Tensor, who: str) -> Tensor:
    """What a user's function gave as a float32 row with an entry for each of `like`. Raises ValueError otherwise."""
    if not isinstance(values, Tensor) or values.shape != like.shape:
        what = f"a tensor of shape {tuple(values.shape)}" if isinstance(values, Tensor) else repr(values)[:60]
        raise ValueError(f"{who} returned {what} instead of a tensor of shape {tuple(like.shape)}")
    return values.to(device=like.device, dtype=torch.float32)


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
