"""Whole models of each family against transformers on the same device."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from ramify.runtime.batch import Batch, Read, Write
from ramify.runtime.models import Model, load_model
from ramify.runtime.models.random_model import random_model
from ramify.runtime.pool import KVPool
from torch import Tensor

from benchmarks.gpu_batches import decode_batch, flat
from benchmarks.gpu_shapes import config

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-biases-tied": ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama-wide-heads": ("Llama", {"head_dim": 128, "num_key_value_heads": 1}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "qwen3-tied": ("Qwen3", {"head_dim": 64, "tie_word_embeddings": True}),
}
# Largest difference of two logits, which are of order 1, from those of float32 with the same rounded weights.
TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 8e-2, torch.float16: 1.5e-2}


def save(directory: Path, case: str, dtype: torch.dtype) -> Any:
    """A transformers model with random weights; biases and norms too, which start as zeros and ones."""
    family, changes = CASES[case]
    torch.manual_seed(0)
    described = getattr(transformers, f"{family}Config")(**(SIZES | changes))
    reference = getattr(transformers, f"{family}ForCausalLM")(described).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_(0.5, 0.3) if parameter.ndim == 1 else parameter.normal_(0, 0.11)
    reference.to(dtype).save_pretrained(directory)
    return reference.float()


def logits(model: Model, ids: list[int], chunks: list[int]) -> Tensor:
    """The logits after each token, computed chunk by chunk."""
    extent = KVPool(model.layout, len(ids)).allocate(len(ids))
    parts, start = [], 0
    for size in chunks:
        stop = start + size
        rows = (0, size)
        batch = Batch(
            torch.tensor(ids[start:stop]),
            torch.arange(start, stop),
            [Write(extent, start, *rows)],
            [Read(extent, stop, [rows], True)],
            torch.arange(size),
        )
        parts.append(model.forward(batch))
        start = stop
    return torch.cat(parts)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(device: torch.device, case: str, dtype: torch.dtype, tmp_path: Path) -> None:
    reference = save(tmp_path, case, dtype).to(device)
    model = load_model(tmp_path, device=device)
    assert model.dtype == model.layout.dtype == dtype and model.device.type == device.type
    ids = random.Random(1).choices(range(SIZES["vocab_size"]), k=150)
    with torch.no_grad():
        expected = reference(torch.tensor([ids], device=device)).logits[0]
    assert expected.std() > 0.1, "the logits must differ enough to compare them"
    for chunks in ([150], [100, 1, 1, 48], [149, 1]):
        got = logits(model, ids, chunks)
        assert got.dtype == torch.float32 and got.device.type == device.type
        torch.testing.assert_close(got, expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("branches", "shared", "own"), [(1, 0, 40), (5, 70, 3), (33, 300, 0), (4, 0, 9)])
def test_tree_attention_equals_flat(
    device: torch.device, dtype: torch.dtype, branches: int, shared: int, own: int
) -> None:
    model = random_model(config("tiny"), dtype=dtype, device=device)
    batch = decode_batch(model.layout, branches, shared, own)
    tree, apart = model.forward(batch), model.forward(flat(batch))
    assert tree.std() > 0.01
    torch.testing.assert_close(apart, tree, rtol=0, atol={torch.float32: 1e-5}.get(dtype, 3e-2))
