"""Whether a model and its KV fit the memory that is free, said before anything is loaded."""

from __future__ import annotations

from math import prod
from pathlib import Path

import torch

from ...ir.errors import ModelError
from ..memory import free_memory
from ..pool import KVLayout
from ..weight_format import WeightFormat
from .checkpoint import Checkpoint
from .config import ModelConfig
from .native_build import library
from .quantized import quantized_bytes

# An engine for fewer tokens serves nobody.
_LEAST_KV_TOKENS = 256
_EMBEDDING = "model.embed_tokens.weight"


def check_memory(
    model_dir: Path,
    checkpoint: Checkpoint,
    layout: KVLayout,
    config: ModelConfig,
    kv_tokens: int | None,
    weights: WeightFormat | None = None,
) -> None:
    """Raises ModelError unless the weights, in the layout's dtype, and so many tokens of KV fit what is free.

    kv_tokens: None asks for a few, since then the engine takes what is left. weights: what matrices are rounded to.
    """
    taken = weight_bytes(checkpoint, config, layout, weights)
    rounded = weight_bytes(checkpoint, config, layout, "int8") if weights is None else None
    kept = f"{_name(layout.dtype)}, those of the layers in {weights}," if weights else None
    check_room(model_dir, layout, taken, config.context_length, kv_tokens, kept=kept, rounded=rounded)


def check_room(
    model_dir: Path,
    layout: KVLayout,
    taken: int,
    context_length: int,
    kv_tokens: int | None,
    *,
    kept: str | None = None,
    rounded: int | None = None,
) -> None:
    """Raises ModelError unless weights that take so many bytes and so many tokens of KV fit what is free.

    kept: how the weights are kept, if not in the layout's dtype; rounded: what they would take in int8, if they could
    be rounded.
    """
    free = free_memory(layout.device)
    num_tokens = min(context_length, _LEAST_KV_TOKENS) if kv_tokens is None else kv_tokens
    per_token = layout.bytes_per_token
    if taken + num_tokens * per_token <= free:
        return
    raise ModelError(
        f"{model_dir} does not fit the memory of {layout.device}: its weights in {kept or _name(layout.dtype)} take "
        f"{_size(taken)}, the KV of {num_tokens:,} tokens {_size(num_tokens * per_token)} ({per_token:,} bytes "
        f"each), and {_size(free)} are free",
        help=_advice(free, taken, rounded, num_tokens, layout),
    )


def weight_bytes(
    checkpoint: Checkpoint, config: ModelConfig, layout: KVLayout, weights: WeightFormat | None = None
) -> int:
    """What the weights take, with what is there twice while they are read: a matrix that is put in another order."""
    on_cpu = layout.device.type == "cpu"
    # Of float32 matrices the kernels keep half, where that is all that is in them (linear.py).
    halves = on_cpu and layout.dtype == torch.float32 and library() is not None
    sizes = {name: prod(tensor.shape) * layout.dtype.itemsize for name, tensor in checkpoint.items()}
    kept = [
        quantized_bytes(checkpoint[name].shape)
        if weights and _is_rounded(name, checkpoint)
        else size // 2
        if halves and name != _EMBEDDING and checkpoint[name].dtype == "BF16"
        else size
        for name, size in sizes.items()
    ]
    # A head that shares the embedding's numbers has an order of its own.
    shared = sizes[_EMBEDDING] if on_cpu and config.tied_embeddings else 0
    return sum(kept) + (shared // 2 if halves else shared) + max(sizes.values())


def _is_rounded(name: str, checkpoint: Checkpoint) -> bool:
    """Whether it is a matrix of one of the decoder's blocks."""
    return ".layers." in name and len(checkpoint[name].shape) == 2


def _advice(free: int, taken: int, rounded: int | None, num_tokens: int, layout: KVLayout) -> str:
    """rounded: what the weights take in int8, if they are not in it."""
    wanted = num_tokens * layout.bytes_per_token
    fitting = (free - taken) // layout.bytes_per_token
    if fitting >= _LEAST_KV_TOKENS:
        return f"kv_tokens={fitting} would fit"
    if layout.dtype == torch.float32 and taken / 2 + wanted / 2 <= free:
        return "in bfloat16 (dtype=torch.bfloat16) it would fit"
    if rounded is not None and rounded + wanted <= free:
        return 'with weights="int8", which is approximate, it would fit'
    return "free some memory, or take a smaller model"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:,.2f} GiB"
