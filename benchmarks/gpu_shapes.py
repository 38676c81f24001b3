"""The models that benchmarks/gpu.py measures, and the least that a step of them has to read and to compute."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from ramify.runtime.models import ModelConfig
from ramify.runtime.models.config import read_config
from ramify.runtime.models.loader import expected_shapes

# What config.json of the published models says, as far as their speed depends on it.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama-3-8b": dict(
        architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=128_256, hidden_size=4096,
        intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
        max_position_embeddings=32_768, rms_norm_eps=1e-5, rope_theta=500_000.0, tie_word_embeddings=False,
    ),
    "qwen3-0.6b": dict(
        architectures=["Qwen3ForCausalLM"], model_type="qwen3", vocab_size=151_936, hidden_size=1024,
        intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
        max_position_embeddings=40_960, rms_norm_eps=1e-6, rope_theta=1_000_000.0, tie_word_embeddings=True,
    ),
    "tiny": dict(
        architectures=["Qwen3ForCausalLM"], model_type="qwen3", vocab_size=512, hidden_size=64, intermediate_size=96,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=4096,
        rms_norm_eps=1e-6, rope_theta=10_000.0, tie_word_embeddings=True,
    ),
}  # fmt: skip


@cache
def config(shape: str) -> ModelConfig:
    """The shape as ramify reads it from a config.json."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(CONFIGS[shape]))
        return read_config(Path(folder))


def multiplied(shape: ModelConfig) -> tuple[int, int]:
    """How many weights the layers' matrices have, and how many the head."""
    layers = sum(prod(size) for name, size in expected_shapes(shape).items() if ".layers." in name and len(size) == 2)
    return layers, shape.vocab_size * shape.hidden_size


def decode_bytes(shape: ModelConfig, distinct: int, itemsize: int, token_bytes: int, layer_itemsize: int = 0) -> int:
    """The least that a decode step reads: all weights once, and the KV of so many distinct tokens once.

    itemsize: bytes of a weight; layer_itemsize: of those in the layers, if that is another.
    """
    layers, head = multiplied(shape)
    return layers * (layer_itemsize or itemsize) + head * itemsize + distinct * token_bytes


def prefill_flops(shape: ModelConfig, num_tokens: int) -> int:
    """What a prompt from its beginning takes with one row of logits; of attention only what the mask leaves."""
    layers, head = multiplied(shape)
    pairs = num_tokens * (num_tokens + 1) // 2
    attention = 4 * shape.num_layers * shape.num_heads * shape.head_dim * pairs
    return 2 * layers * num_tokens + 2 * head + attention
