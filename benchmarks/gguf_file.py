"""Writes a random Qwen3 checkpoint (checkpoint.py) as GGUF, for llama.cpp: `python gguf_file.py CHECKPOINT`. Needs the
package gguf.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np

_TYPES = {"BF16": (np.uint16, gguf.GGMLQuantizationType.BF16), "F32": (np.float32, gguf.GGMLQuantizationType.F32)}


def written(checkpoint: Path) -> Path:
    """The checkpoint's GGUF file, written beside it on the first use."""
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
    _add_tokenizer(writer, checkpoint, config["vocab_size"])
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


def _add_tokenizer(writer: gguf.GGUFWriter, checkpoint: Path, num_tokens: int) -> None:
    """Byte-level BPE. Words are told apart as Qwen2's tokenizer does, which is nearly as the checkpoint's own."""
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    tokens = [f"[UNUSED{token_id}]" for token_id in range(num_tokens)]
    kinds = [gguf.TokenType.UNUSED] * num_tokens
    for text, token_id in tokenizer["model"]["vocab"].items():
        tokens[token_id], kinds[token_id] = text, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]], kinds[added["id"]] = added["content"], gguf.TokenType.CONTROL
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(json.loads((checkpoint / "tokenizer_config.json").read_text())["chat_template"])


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


if __name__ == "__main__":
    print(written(Path(sys.argv[1])))
