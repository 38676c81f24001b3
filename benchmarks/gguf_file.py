"""Writes a random Qwen3 checkpoint (checkpoint.py) as GGUF, for llama.cpp. Needs the package gguf."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

_TYPES = {"BF16": (np.uint16, gguf.GGMLQuantizationType.BF16), "F32": (np.float32, gguf.GGMLQuantizationType.F32)}


def written(checkpoint: Path) -> Path:
    """The checkpoint's GGUF file, written beside it on the first use. It has no tokenizer."""
    target = checkpoint.with_name(f"{checkpoint.name}.gguf")
    if not target.exists():
        partial = target.with_suffix(".partial")
        _write(checkpoint, partial)
        partial.rename(target)
    return target


def _write(checkpoint: Path, path: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "qwen3")
    _add_config(writer, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    for name, (kind, weights) in _tensors(checkpoint / "model.safetensors").items():
        known = names.get_name(name, try_suffixes=(".weight",))
        if known is None:
            raise ValueError(f"{checkpoint}: GGUF has no name for {name}")
        if weights.ndim == 1:
            writer.add_tensor(known, _as_float(weights))
        else:
            writer.add_tensor(known, weights.view(np.uint8), raw_dtype=_TYPES[kind][1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_config(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_tokenizer_model("no_vocab")


def _tensors(path: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Type and values of each tensor of a safetensors file; values in bfloat16 as the integers of their bits."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    found = {}
    for name, about in header.items():
        if name != "__metadata__":
            start, _ = about["data_offsets"]
            shape, dtype = tuple(about["shape"]), _TYPES[about["dtype"]][0]
            found[name] = about["dtype"], np.memmap(path, dtype, "r", offset=8 + size + start, shape=shape)
    return found


def _as_float(weights: np.ndarray) -> np.ndarray:
    """In float32, as llama.cpp wants its norms: bfloat16 is the upper half of that."""
    return weights if weights.dtype == np.float32 else (weights.astype(np.uint32) << 16).view(np.float32)
