"""Attention of query rows to one slab of keys and values, with the log-sum-exp that merging needs.

All functions take the same arguments and return the same values; which one serves is decided once per model.

query: (1, num_kv_heads, rows * group, head_dim): the `group` query heads that share a key head lie beside one another
as extra rows, so that keys and values need no expansion. key and value: (1, num_kv_heads, length, head_dim).
causal: length equals rows, and row i sees the first i + 1 tokens; otherwise every row sees all of them. rule: how
scores are made of products, and mask what rows do not see, for models that differ in that.
Returns the output, shaped like the query, and the log-sum-exp of the scaled scores, float32
(1, num_kv_heads, rows * group).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """Scores are scale * product (None: head_dim ** -0.5), then cap * tanh(score / cap) where there is a cap (Gemma 2,
    arXiv 2408.00118, section 2)."""

    scale: float | None = None
    cap: float | None = None


class PartialAttention(Protocol):
    """One of the implementations below."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        group: int,
        causal: bool,
        rule: ScoreRule = ...,
        mask: Tensor | None = None,
        /,
    ) -> tuple[Tensor, Tensor]:
        """See the module. mask: added to the scores, (rows * group, length) in the query's dtype, for causal=False."""


_USUAL = ScoreRule()

_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
# Rows of a causal square that go through the kernel together.
_BLOCK_ROWS = 64
_FLASH_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_XFORMERS_DTYPES = (torch.bfloat16, torch.float16)
_log = logging.getLogger(__name__)


def choose_partial_attention(device: torch.device, dtype: torch.dtype) -> PartialAttention:
    """The fastest of the implementations that serve this device and dtype."""
    if device.type == "cpu" and dtype in _FLASH_DTYPES:
        return flash_attention
    if device.type == "cuda" and dtype in _XFORMERS_DTYPES and _has_xformers():
        return xformers_attention
    return plain_attention


@cache
def _has_xformers() -> bool:
    try:
        import xformers.ops.fmha  # noqa: F401
    except Exception as error:  # of many kinds, where its version and torch's do not fit each other
        _log.warning("xformers cannot be used, so attention takes more memory and time: %s", error)
        return False
    return True


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    group: int,
    causal: bool,
    rule: ScoreRule = _USUAL,
    mask: Tensor | None = None,
    /,
) -> tuple[Tensor, Tensor]:
    """torch's blocked CPU kernel: no score matrix in memory.

    Its own causal mask skips nothing in squares of a few hundred rows, so a square goes in blocks of rows, each with
    the keys that some of its rows see: a third less work. It cannot cap scores.
    """
    if rule.cap is not None:
        return plain_attention(query, key, value, group, causal, rule, mask)
    if not causal:
        output, log_sum_exp = _FLASH(query, key, value, attn_mask=mask, scale=rule.scale)
        return output, log_sum_exp
    length = key.shape[2]
    row, column = torch.arange(length), torch.arange(length)
    hidden = torch.where(column > row[:, None], float("-inf"), 0.0).to(query.dtype).repeat_interleave(group, 0)
    parts = []
    for start in range(0, length, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, length)
        rows = slice(start * group, stop * group)
        part = query[:, :, rows], key[:, :, :stop], value[:, :, :stop]
        parts.append(_FLASH(*part, attn_mask=hidden[None, None, rows, :stop], scale=rule.scale))
    outputs, sums = zip(*parts, strict=True)
    return torch.cat(outputs, 2), torch.cat(sums, 2)


def xformers_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    group: int,
    causal: bool,
    rule: ScoreRule = _USUAL,
    mask: Tensor | None = None,
    /,
) -> tuple[Tensor, Tensor]:
    """xformers' choice of a kernel for a GPU, in 16 bits. What no kernel takes gets plain attention: heads of other
    sizes, caps and masks.

    xformers wants rows before heads. In a causal square the heads that share a key head are a dimension of their own,
    since a row there is a token.
    """
    from xformers.ops.fmha import memory_efficient_attention_partial
    from xformers.ops.fmha.attn_bias import LowerTriangularMask

    _, num_kv_heads, packed_rows, size = query.shape
    if size % 8 or rule.cap is not None or mask is not None:
        return plain_attention(query, key, value, group, causal, rule, mask)
    key, value = key.transpose(1, 2), value.transpose(1, 2)
    if not causal:
        output, log_sum_exp = memory_efficient_attention_partial(query.transpose(1, 2), key, value, scale=rule.scale)
        return output.transpose(1, 2), log_sum_exp
    num_rows = packed_rows // group
    by_row = query.view(1, num_kv_heads, num_rows, group, size).transpose(1, 2).contiguous()
    key, value = (each.unsqueeze(3).expand(by_row.shape) for each in (key, value))
    output, log_sum_exp = memory_efficient_attention_partial(
        by_row, key, value, LowerTriangularMask(), scale=rule.scale
    )
    return output.transpose(1, 2).reshape(query.shape), log_sum_exp.transpose(2, 3).reshape(query.shape[:-1])


def plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    group: int,
    causal: bool,
    rule: ScoreRule = _USUAL,
    mask: Tensor | None = None,
    /,
) -> tuple[Tensor, Tensor]:
    """Matrix products and a softmax on any device; takes memory for the scores, float32 rows * group * length."""
    scores = (query @ key.mT).float() * (query.shape[-1] ** -0.5 if rule.scale is None else rule.scale)
    if rule.cap is not None:
        scores = scores.div_(rule.cap).tanh_().mul_(rule.cap)
    if mask is not None:
        scores += mask
    if causal:
        length = key.shape[2]
        hidden = torch.ones(length, length, dtype=torch.bool, device=query.device).triu_(1)
        scores.masked_fill_(hidden.repeat_interleave(group, dim=0), float("-inf"))
    log_sum_exp = scores.logsumexp(-1)
    weights = scores.sub_(log_sum_exp.unsqueeze(-1)).exp_()
    return weights.to(value.dtype) @ value, log_sum_exp
