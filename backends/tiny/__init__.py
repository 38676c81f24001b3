"""The embedded default model: a small Llama-architecture decoder that a fresh machine can run.

`weights/` is an ordinary Hugging Face model folder, loaded like any other checkpoint. `debate` and `tasks` generate
what it was trained on, `train` makes it, `evaluate` measures it, CARD.md says what it can and cannot do.
"""

from pathlib import Path

__all__ = ["model_dir"]


def model_dir() -> Path:
    """Return the folder that holds the embedded model's config, weights and tokenizer."""
    return Path(__file__).parent / "weights"
