"""Every operation of the decoder against its definition, computed in float64 on the CPU."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import pytest
import torch
from ramify.runtime.attention.partial import choose_partial_attention
from ramify.runtime.batch import Read, Write
from ramify.runtime.models import config as configs
from ramify.runtime.models import decoder
from ramify.runtime.models.linear import make_linear
from ramify.runtime.models.operations import Operations, TorchOperations
from ramify.runtime.models.rope import RopeConfig, inverse_frequencies, rotations
from ramify.runtime.pool import Extent, KVLayout, KVPool
from torch import Tensor

from ..runtime.trees import Tree, random_tree

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# In half precision torch's operations round after each step, and every partial result of attention once.
TOLERANCE = {torch.float32: 5e-5, torch.bfloat16: 8e-2, torch.float16: 1e-2}
NUM_LAYERS, EPS = 2, 1e-5
HEADS = [(4, 2, 16), (8, 2, 64), (4, 1, 128), (3, 1, 20)]


def shape_of(num_heads: int, num_kv_heads: int, head_dim: int) -> configs.ModelConfig:
    """Of which the operations read these fields and the norm's epsilon."""
    fields = dict.fromkeys((field.name for field in dataclasses.fields(configs.ModelConfig)), None)
    named = {"num_heads": num_heads, "num_kv_heads": num_kv_heads, "head_dim": head_dim, "norm_eps": EPS}
    return configs.ModelConfig(**(fields | named))  # type: ignore[arg-type]


def chosen(shape: configs.ModelConfig, device: torch.device, dtype: torch.dtype) -> Operations:
    return decoder.choose_operations(shape, device, dtype)


def plain(shape: configs.ModelConfig, device: torch.device, dtype: torch.dtype) -> Operations:
    return TorchOperations(shape, device, dtype)


Choose = Callable[[configs.ModelConfig, torch.device, torch.dtype], Operations]
EACH = pytest.mark.parametrize("choose", [chosen, plain])


def exact(numbers: Tensor) -> Tensor:
    return numbers.detach().to("cpu", torch.float64)


def normed(rows: Tensor, weight: Tensor) -> Tensor:
    return rows / (rows.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


@EACH
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_rows", [1, 5, 64])
@pytest.mark.parametrize("size", [48, 1000, 4096])
def test_norms_and_gates(device: torch.device, choose: Choose, dtype: torch.dtype, num_rows: int, size: int) -> None:
    torch.manual_seed(size)
    operations = choose(shape_of(4, 2, 16), device, dtype)
    rows = (torch.randn(num_rows, size) * 3).to(device, dtype)
    weight = (torch.rand(size) + 0.5).to(device, dtype)
    got = operations.norm(rows, weight)
    assert got.dtype == dtype and got.device == rows.device
    torch.testing.assert_close(exact(got), normed(exact(rows), exact(weight)), rtol=0.01, atol=TOLERANCE[dtype])
    both = (torch.randn(num_rows, 2 * size) * 3).to(device, dtype)
    gates, ups = exact(both).chunk(2, 1)
    got = operations.gate(both)
    torch.testing.assert_close(exact(got), torch.nn.functional.silu(gates) * ups, rtol=0.01, atol=TOLERANCE[dtype])


def flat_attention(query: Tensor, visible: list[tuple[Extent, int]], layer: int) -> Tensor:
    """One row's attention: query (heads, head_dim) to all it sees at once."""
    keys = torch.cat([exact(extent.keys(layer)[:, :length]) for extent, length in visible], 1)
    values = torch.cat([exact(extent.values(layer)[:, :length]) for extent, length in visible], 1)
    group = query.shape[0] // keys.shape[0]
    keys, values = keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0)
    scores = torch.einsum("hd,hld->hl", query, keys) * query.shape[1] ** -0.5
    return torch.einsum("hl,hld->hd", scores.softmax(-1), values).flatten()


def turned(heads: Tensor, factors: Tensor) -> Tensor:
    """Heads (n, heads, head_dim), whose pairs lie side by side, by complex factors (n, 1, head_dim / 2)."""
    pairs = torch.view_as_complex(heads.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * factors).flatten(-2)


def check(tree: Tree, operations: Operations, shape: configs.ModelConfig, *, has_norm: bool, nth: int = 1) -> None:
    """Attends in every layer, and compares what was stored and every nth row of what came out."""
    layout, batch = tree.pool.layout, tree.batch()
    rope = RopeConfig("default", 4096, {"rope_theta": 500.0})
    frequencies = inverse_frequencies(rope, shape.head_dim).to(layout.device)
    factors = rotations(batch.positions.to(layout.device), frequencies, 1.0)
    step, num_rows, num_turned = operations.step(batch, factors), len(tree.rows), shape.num_heads + shape.num_kv_heads
    tolerance = TOLERANCE[layout.dtype]
    for layer in range(NUM_LAYERS):
        size = (num_rows, shape.num_heads + 2 * shape.num_kv_heads, shape.head_dim)
        fused = torch.randn(size).to(layout.device, layout.dtype)
        weight = (torch.rand(num_turned, shape.head_dim) + 0.5).to(fused) if has_norm else None
        before = exact(fused)
        got = step.attend(fused.view(num_rows, -1), layer, weight)
        assert got.dtype == layout.dtype and got.shape == (num_rows, shape.num_heads * shape.head_dim)
        heads, values = before[:, :num_turned], before[:, num_turned:]
        heads = turned(heads if weight is None else normed(heads, exact(weight)), factors.cpu().to(torch.complex128))
        for write in tree.writes:
            end = write.offset + write.stop - write.start
            stored = exact(write.extent.data[layer, :, :, write.offset : end])
            rows = slice(write.start, write.stop)
            torch.testing.assert_close(stored[1], values[rows].transpose(0, 1), rtol=0, atol=0)
            keys = heads[rows, shape.num_heads :].transpose(0, 1)
            torch.testing.assert_close(stored[0], keys, rtol=0.02, atol=tolerance)
        queries = heads[:, : shape.num_heads]
        rows_seen = list(zip(queries, tree.rows, strict=True))[::nth]
        expected = torch.stack([flat_attention(row, seen, layer) for row, seen in rows_seen])
        torch.testing.assert_close(exact(got)[::nth], expected, rtol=0, atol=tolerance)


@EACH
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", HEADS)
def test_attention_over_random_trees(
    device: torch.device, choose: Choose, dtype: torch.dtype, heads: tuple[int, int, int]
) -> None:
    shape = shape_of(*heads)
    operations = choose(shape, device, dtype)
    layout = KVLayout(NUM_LAYERS, shape.num_kv_heads, shape.head_dim, dtype, device)
    for seed in range(4):
        check(random_tree(seed, layout), operations, shape, has_norm=bool(seed % 2))


@EACH
@pytest.mark.parametrize("dtype", DTYPES)
def test_long_prefixes_and_chunks(device: torch.device, choose: Choose, dtype: torch.dtype) -> None:
    """Longer than any block of a kernel, with lengths that are no multiple of one."""
    shape = shape_of(8, 2, 64)
    torch.manual_seed(5)
    tree = Tree(KVPool(KVLayout(NUM_LAYERS, 2, 64, dtype, device), 10_000), random.Random(5))
    prefix, chunk, tail = tree.extent(1029), tree.extent(333), tree.extent(3)
    tree.rows = [[(prefix, 1029), (chunk, 100 + i + 1)] for i in range(233)] + [[(prefix, 1029), (tail, 3)]]
    tree.writes = [Write(chunk, 100, 0, 233), Write(tail, 2, 233, 234)]
    tree.reads = [
        Read(prefix, 1029, [(0, 234)], False),
        Read(chunk, 333, [(0, 233)], True),
        Read(tail, 3, [(233, 234)], True),
    ]
    check(tree, choose(shape, device, dtype), shape, has_norm=False, nth=13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True])
def test_partial_attention_and_its_log_sum_exp(device: torch.device, dtype: torch.dtype, causal: bool) -> None:
    torch.manual_seed(3)
    length = rows = 70
    query, key, value = (torch.randn(1, 2, size, 16).to(device, dtype) for size in (rows * 3, length, length))
    output, sums = choose_partial_attention(device, dtype)(query, key, value, 3, causal)
    scores = exact(query) @ exact(key).mT / 4
    if causal:
        hidden = torch.ones(rows, length, dtype=torch.bool).triu(1).repeat_interleave(3, 0)
        scores.masked_fill_(hidden, float("-inf"))
    torch.testing.assert_close(exact(output), scores.softmax(-1) @ exact(value), rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(exact(sums), scores.logsumexp(-1), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_rows", [1, 3, 64, 200])
@pytest.mark.parametrize("has_bias", [False, True])
def test_linear_layers(device: torch.device, dtype: torch.dtype, num_rows: int, has_bias: bool) -> None:
    torch.manual_seed(num_rows)
    weight, bias, rows, residual = (
        torch.randn(size).to(device, dtype) for size in ((96, 256), (96,), (num_rows, 256), (num_rows, 96))
    )
    layer = make_linear(weight, bias if has_bias else None)
    expected = exact(rows) @ exact(weight).T + (exact(bias) if has_bias else 0)
    tolerance = {torch.float32: 2e-4, torch.bfloat16: 0.4, torch.float16: 0.05}[dtype]
    torch.testing.assert_close(exact(layer(rows)), expected, rtol=0, atol=tolerance)
    added = layer.add_to(residual.clone(), rows)
    torch.testing.assert_close(exact(added), expected + exact(residual), rtol=0, atol=tolerance)
