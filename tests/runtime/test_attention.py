"""Tree attention against one flat softmax attention in float32, over random trees of reads."""

from __future__ import annotations

import random
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ramify.runtime.attention.partial import (
    PartialAttention,
    ScoreRule,
    choose_partial_attention,
    flash_attention,
    plain_attention,
    xformers_attention,
)
from ramify.runtime.attention.plan import AttentionPlan
from ramify.runtime.batch import Read, Write
from ramify.runtime.pool import Extent, KVLayout, KVPool
from torch import Tensor

from .trees import Tree, random_tree

NUM_LAYERS, HEAD_DIM = 2, 8
PARTIALS = [flash_attention, plain_attention]

# The worst difference seen over thousands of trees is 1e-6 in float32 and 2e-2 in bfloat16, where every partial result
# is rounded once.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}


def _layout(num_kv_heads: int, dtype: torch.dtype) -> KVLayout:
    return KVLayout(NUM_LAYERS, num_kv_heads, HEAD_DIM, dtype, torch.device("cpu"))


def _flat(query: Tensor, visible: list[tuple[Extent, int]], layer: int) -> Tensor:
    """One row's attention: query (heads, head_dim) to all it sees at once, in float32."""
    keys = torch.cat([extent.keys(layer)[:, :length] for extent, length in visible], 1).float()
    values = torch.cat([extent.values(layer)[:, :length] for extent, length in visible], 1).float()
    group = query.shape[0] // keys.shape[0]
    keys, values = keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0)
    scores = torch.einsum("hd,hld->hl", query.float(), keys) * HEAD_DIM**-0.5
    return torch.einsum("hl,hld->hd", scores.softmax(-1), values).flatten()


def _check(tree: Tree, num_heads: int, partial: PartialAttention) -> None:
    """Stores random keys and values, attends, and compares every row of every layer."""
    layout = tree.pool.layout
    plan = AttentionPlan(tree.batch(), num_heads, partial)
    num_rows = len(tree.rows)
    for layer in range(NUM_LAYERS):
        # As the decoder has them: query, key and value heads in one buffer.
        fused = torch.randn(num_rows, num_heads + 2 * layout.num_kv_heads, HEAD_DIM).to(layout.dtype)
        new = fused[:, num_heads:].view(num_rows, 2, layout.num_kv_heads, HEAD_DIM)
        plan.store(new, layer)
        for write in tree.writes:
            end = write.offset + write.stop - write.start
            stored = write.extent.data[layer, :, :, write.offset : end]
            assert torch.equal(stored, new[write.start : write.stop].permute(1, 2, 0, 3))
        query = fused[:, :num_heads]
        expected = torch.stack([_flat(row, seen, layer) for row, seen in zip(query, tree.rows, strict=True)])
        got = plan.attend(query, layer)
        assert got.dtype == layout.dtype
        torch.testing.assert_close(got.float(), expected, rtol=0, atol=TOLERANCE[layout.dtype])


@pytest.mark.parametrize("partial", PARTIALS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), heads=st.sampled_from([(1, 1), (2, 2), (4, 2), (6, 2), (3, 1)]))
def test_random_trees(partial: PartialAttention, seed: int, heads: tuple[int, int]) -> None:
    _check(random_tree(seed, _layout(heads[1], torch.float32)), heads[0], partial)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("partial", PARTIALS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_random_trees_in_half_precision(partial: PartialAttention, dtype: torch.dtype, seed: int) -> None:
    _check(random_tree(seed, _layout(2, dtype)), 4, partial)


def _decode_tree(prefix_len: int, num_branches: int) -> Tree:
    """Branches that decode one token each below a shared prefix: every row has two reads, in row order."""
    tree = Tree(KVPool(_layout(2, torch.float32), 10_000), random.Random(0))
    prefix = tree.extent(prefix_len)
    for _ in range(num_branches):
        tail = tree.extent(5)
        row = len(tree.rows)
        tree.rows.append([(prefix, prefix_len), (tail, 3)])
        tree.writes.append(Write(tail, 2, row, row + 1))
        tree.reads.append(Read(tail, 3, [(row, row + 1)], False))
    tree.reads.insert(0, Read(prefix, prefix_len, [(0, num_branches)], False))
    return tree


def test_regular_decode_is_merged_without_gathering() -> None:
    tree = _decode_tree(600, 5)
    tree.reads[1:] = reversed(tree.reads[1:])
    plan = AttentionPlan(tree.batch(), 4, flash_attention)
    assert plan._merges is None
    _check(tree, 4, flash_attention)


def test_shared_prefix_is_one_product() -> None:
    calls = []

    def counting(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        calls.append((query.shape[2], key.shape[2]))
        return flash_attention(query, key, value, *rest)

    tree = _decode_tree(40, 3)
    AttentionPlan(tree.batch(), 4, counting).attend(torch.randn(3, 4, HEAD_DIM), 1)
    assert sorted(calls) == [(2, 3), (2, 3), (2, 3), (6, 40)]


def test_long_causal_chunk_and_large_scores() -> None:
    """Several of the kernel's blocks, and scores whose exponentials overflow float32 unless they are shifted."""
    torch.manual_seed(1)
    tree = Tree(KVPool(_layout(2, torch.float32), 10_000), random.Random(1))
    prefix, tail = tree.extent(700), tree.extent(1300)
    prefix.data.mul_(30)
    tree.rows = [[(prefix, 700), (tail, 600 + i + 1)] for i in range(650)]
    tree.writes = [Write(tail, 600, 0, 650)]
    tree.reads = [Read(prefix, 700, [(0, 650)], False), Read(tail, 1250, [(0, 650)], True)]
    for partial in PARTIALS:
        plan = AttentionPlan(tree.batch(), 4, partial)
        query = torch.randn(650, 4, HEAD_DIM)
        got = plan.attend(query, 0)
        for row in (0, 1, 300, 649):
            torch.testing.assert_close(got[row], _flat(query[row], tree.rows[row], 0), rtol=1e-4, atol=1e-4)


def test_choice_of_implementation() -> None:
    assert choose_partial_attention(torch.device("cpu"), torch.bfloat16) is flash_attention
    assert choose_partial_attention(torch.device("cpu"), torch.float64) is plain_attention
    assert choose_partial_attention(torch.device("cuda"), torch.float32) is plain_attention


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("group", [1, 4])
def test_xformers_on_a_gpu(causal: bool, group: int) -> None:
    assert choose_partial_attention(torch.device("cuda"), torch.bfloat16) is xformers_attention
    query = torch.randn(1, 2, 70 * group, 64, device="cuda", dtype=torch.bfloat16)
    key, value = torch.randn(2, 1, 2, 70, 64, device="cuda", dtype=torch.bfloat16)
    for got, expected in zip(
        xformers_attention(query, key, value, group, causal),
        plain_attention(query, key, value, group, causal),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=3e-2)


def _partial(
    query: Tensor, key: Tensor, value: Tensor, bias: object = None, *, scale: float | None
) -> tuple[Tensor, Tensor]:
    """What xformers says of its function of this name: rows before heads, with or without groups of heads."""
    *_, num_rows, _ = query.movedim(1, -2).shape
    assert key.stride(3) == 0 or query.dim() == 4 or query.shape[3] == 1, "keys are copied"
    assert query.dim() == 4 or query.stride(2) == query.stride(3) * query.shape[3], "GQA wants heads side by side"
    scores = query.movedim(1, -2) @ key.movedim(1, -2).mT * (scale or query.shape[-1] ** -0.5)
    if bias is not None:
        scores = scores.masked_fill(torch.ones(num_rows, key.shape[1]).triu(1).bool(), float("-inf"))
    return (scores.softmax(-1) @ value.movedim(1, -2)).movedim(-2, 1), scores.logsumexp(-1)


@pytest.mark.parametrize("rule", [ScoreRule(), ScoreRule(0.7), ScoreRule(cap=0.5)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("group", [1, 4])
def test_xformers_is_given_what_it_wants(
    monkeypatch: pytest.MonkeyPatch, causal: bool, group: int, rule: ScoreRule
) -> None:
    for name in ("xformers", "xformers.ops", "xformers.ops.fmha", "xformers.ops.fmha.attn_bias"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["xformers.ops.fmha"].__dict__["memory_efficient_attention_partial"] = _partial
    sys.modules["xformers.ops.fmha.attn_bias"].__dict__["LowerTriangularMask"] = object
    query = torch.randn(1, 2, 6 * group, HEAD_DIM)
    key, value = torch.randn(2, 1, 2, 6, HEAD_DIM)
    for got, expected in zip(
        xformers_attention(query, key, value, group, causal, rule),
        plain_attention(query, key, value, group, causal, rule),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("group", [1, 3])
def test_causal_squares_of_any_length(length: int, group: int) -> None:
    torch.manual_seed(length)
    query = torch.randn(1, 2, length * group, HEAD_DIM) * 4
    key, value = torch.randn(2, 1, 2, length, HEAD_DIM)
    for got, expected in zip(
        flash_attention(query, key, value, group, True), plain_attention(query, key, value, group, True), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
