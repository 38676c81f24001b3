"""Random-weight checkpoints of a real model's shape, with the embedded model's tokenizer. Needs transformers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ramify.backends.tiny import model_dir

# Sizes of Qwen3 models: 0.6B is the published one (its vocabulary included), small is for quick looks.
SHAPES: dict[str, dict[str, Any]] = {
    "small": dict(
        vocab_size=1536, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=8192, initializer_range=0.2,
    ),
    "0.6b": dict(
        vocab_size=151_936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=40_960, tie_word_embeddings=True,
    ),
}  # fmt: skip


def random_checkpoint(size: str, folder: Path) -> Path:
    """A directory with a random checkpoint of a size, written on the first use. Weights are the same every time."""
    target = folder / f"random-qwen3-{size}"
    if (target / "config.json").exists():
        return target
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(**SHAPES[size], bos_token_id=None, eos_token_id=2, pad_token_id=0)
    model = Qwen3ForCausalLM(config).to(torch.bfloat16 if size == "0.6b" else torch.float32)
    partial = target.with_suffix(".partial")
    model.save_pretrained(partial)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model_dir() / name, partial)
    (partial / "generation_config.json").unlink(missing_ok=True)
    partial.rename(target)
    return target
