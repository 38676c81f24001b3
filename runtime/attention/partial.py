"""Attention of query rows to one slab of keys and values, with the log-sum-exp that merging needs.

Both functions take the same arguments and return the same values; which one serves is decided once per model.

query: (1, num_kv_heads, rows * group, head_dim): the `group` query heads that share a key head lie beside one another
as extra rows, so that keys and values need no expansion. key and value: (1, num_kv_heads, length, head_dim).
causal: length equals rows, and row i sees the first i + 1 tokens; otherwise every row sees all of them.
Returns the output, shaped like the query, and the log-sum-exp of the scaled scores, float32
(1, num_kv_heads, rows * group). Scores are scaled by head_dim ** -0.5.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PartialAttention = Callable[[Tensor, Tensor, Tensor, int, bool], tuple[Tensor, Tensor]]

_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_FLASH_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def choose_partial_attention(device: torch.device, dtype: torch.dtype) -> PartialAttention:
    """The fastest of the implementations that serve this device and dtype."""
    return flash_attention if device.type == "cpu" and dtype in _FLASH_DTYPES else plain_attention


def flash_attention(query: Tensor, key: Tensor, value: Tensor, group: int, causal: bool) -> tuple[Tensor, Tensor]:
    """torch's blocked CPU kernel: no score matrix in memory, one call per slab."""
    if not causal:
        output, log_sum_exp = _FLASH(query, key, value)
        return output, log_sum_exp
    # The kernel's causal mask counts rows, so the heads of a group become a dimension of their own, which needs no
    # copy: the kernel follows strides, and its output has those of the query.
    num_kv_heads, rows, head_dim = query.shape[1], query.shape[2] // group, query.shape[3]
    by_head = query.view(num_kv_heads, rows, group, head_dim).transpose(1, 2)
    shape = (num_kv_heads, group, rows, head_dim)
    output, log_sum_exp = _FLASH(
        by_head, key.transpose(0, 1).expand(shape), value.transpose(0, 1).expand(shape), is_causal=True
    )
    flat = (1, num_kv_heads, rows * group)
    return output.transpose(1, 2).reshape(*flat, head_dim), log_sum_exp.transpose(1, 2).reshape(flat)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, group: int, causal: bool) -> tuple[Tensor, Tensor]:
    """Matrix products and a softmax on any device; takes memory for the scores, float32 rows * group * length."""
    scores = (query @ key.mT).float() * query.shape[-1] ** -0.5
    if causal:
        length = key.shape[2]
        hidden = torch.ones(length, length, dtype=torch.bool, device=query.device).triu_(1)
        scores.masked_fill_(hidden.repeat_interleave(group, dim=0), float("-inf"))
    log_sum_exp = scores.logsumexp(-1)
    weights = scores.sub_(log_sum_exp.unsqueeze(-1)).exp_()
    return weights.to(value.dtype) @ value, log_sum_exp
