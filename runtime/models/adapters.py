"""LoRA adapters (arXiv 2106.09685) in PEFT's format: a folder with adapter_config.json and adapter_model.safetensors.

To the weight (out, in) of a linear layer an adapter adds `up @ down`, of matrices (out, rank) and (rank, in); the
factor alpha / rank (alpha / sqrt(rank) with rank-stabilized LoRA, arXiv 2312.03732) is taken into `up`. What an
adapter's configuration asks for besides is refused by name.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...ir.errors import ModelError
from ..transfer import upload
from .checkpoint import FLOATS, Checkpoint, TensorReader, listed, read_tensors
from .config import read_json_object

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TENSOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])\.weight")
# What says nothing about results, or is said by the tensors; and what is understood.
_NO_MATTER = {
    "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "task_type", "peft_version",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "lora_dropout", "rank_pattern",
    "fan_in_fan_out", "megatron_core", "qalora_group_size", "lora_ga_config", "eva_config", "corda_config",
    "loftq_config", "ensure_weight_tying",
}  # fmt: skip
_UNDERSTOOD = {"peft_type", "r", "lora_alpha", "alpha_pattern", "use_rslora", "bias", "init_lora_weights"}
# Ways to begin that leave the model's own weights as they are; others change them, and need both.
_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, slots=True)
class Delta:
    """What is added to a weight. down: (rank, in); up: (out, rank), with its factor."""

    down: Tensor
    up: Tensor


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter by the names of the layers that it changes, as in "model.layers.0.self_attn.q_proj".

    tag: tells its KV from that of others, a number above 0 and below 2 ** 31, the same for equal adapters.
    """

    directory: Path
    tag: int
    deltas: Mapping[str, Delta]


def read_adapter(directory: Path, dtype: torch.dtype, device: torch.device) -> Adapter:
    """The adapter in a folder, its matrices in a dtype and on a device. Raises ModelError that names what is wrong."""
    if not directory.is_dir():
        raise ModelError(f"{directory} is not a directory", help=f"an adapter is a folder with {_CONFIG}")
    path = directory / _CONFIG
    config = read_json_object(path)
    _check_config(config, path)
    if not (directory / _WEIGHTS).exists():
        raise ModelError(f"{directory} has no {_WEIGHTS}", help="only safetensors are read")
    checkpoint = read_tensors(directory / _WEIGHTS)
    pairs = _pairs(checkpoint, directory / _WEIGHTS)
    with TensorReader(checkpoint, dtype, device) as reader:
        deltas = {name: _delta(reader, config, name, *pair) for name, pair in pairs.items()}
        said = repr(sorted(config.items(), key=str)) + reader.fingerprint()
    digest = hashlib.blake2b(said.encode(), digest_size=4).digest()
    return Adapter(directory, int.from_bytes(digest, "little") % (2**31 - 1) + 1, deltas)


def _check_config(config: dict[str, Any], path: Path) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ModelError(f"{path}: adapters of the kind {kind!r} are not supported; LORA is")
    asked = sorted(key for key, value in config.items() if value and key not in _NO_MATTER | _UNDERSTOOD)
    if asked:
        raise ModelError(f"{path}: {listed([f'{key}={config[key]!r}' for key in asked])} is not supported")
    if config.get("bias", "none") != "none":
        raise ModelError(f"{path}: bias={config['bias']!r} is not supported: it changes the model's own biases")
    if config.get("init_lora_weights") not in _BEGINNINGS:
        raise ModelError(
            f"{path}: init_lora_weights={config['init_lora_weights']!r} changes the model's own weights",
            help="save the adapter converted to plain LoRA (peft: path_initial_model_for_weight_conversion)",
        )
    for key in ("r", "lora_alpha"):
        value = config.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ModelError(f"{path}: {key} is {value!r}; it must be a number above 0")


def _pairs(checkpoint: Checkpoint, path: Path) -> dict[str, tuple[str, str]]:
    """The tensors' names by the layer that they change, `down` before `up`."""
    found: dict[str, dict[str, str]] = {}
    others = []
    for name, tensor in checkpoint.items():
        match = _TENSOR.fullmatch(name)
        if match is None or len(tensor.shape) != 2 or tensor.dtype not in FLOATS:
            others.append(f"{name} {tensor.dtype} {tensor.shape}")
        else:
            found.setdefault(match[1], {})[match[2]] = name
    others += [name for parts in found.values() if len(parts) < 2 for name in parts.values()]
    if others or not found:
        raise ModelError(
            f"{path}: these tensors are not LoRA's pairs of matrices: {listed(others) or 'there are none'}"
        )
    return {layer: (parts["A"], parts["B"]) for layer, parts in found.items()}


def _delta(reader: TensorReader, config: dict[str, Any], layer: str, down: str, up: str) -> Delta:
    matrices = Delta(reader.tensor(down), reader.tensor(up))
    rank = matrices.down.shape[0]
    if matrices.up.shape[1] != rank:
        raise ModelError(f"{reader.file(up)}: {layer} has matrices of the ranks {rank} and {matrices.up.shape[1]}")
    patterns = config.get("alpha_pattern") or {}
    fits = (alpha for pattern, alpha in patterns.items() if re.match(rf"(.*\.)?({pattern})$", layer))
    alpha = next(fits, config["lora_alpha"])
    return Delta(matrices.down, matrices.up * (alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)))


def check_sizes(adapter: Adapter, layer: str, size: tuple[int, int]) -> None:
    """Raises ModelError unless what is added to a layer has its size, (out, in)."""
    delta = adapter.deltas[layer]
    found = delta.up.shape[0], delta.down.shape[1]
    if found != size:
        raise ModelError(f"{adapter.directory}: {layer} is {found}, and the model's layer {size}", help=_OTHER)


def check_layers(adapter: Adapter, known: Mapping[str, Any]) -> None:
    """Raises ModelError where an adapter changes what cannot be changed here."""
    unknown = [layer for layer in adapter.deltas if layer not in known]
    if unknown:
        raise ModelError(
            f"{adapter.directory} changes what is no linear layer of the blocks: {listed(unknown)}", help=_OTHER
        )


_OTHER = "an adapter fits the model that it was trained with; embeddings, heads and experts cannot be adapted here"


def add_to_rows(result: Tensor, rows: Tensor, index: Tensor, delta: Delta) -> None:
    """Adds to the rows `index` of result (n, out) what an adapter adds for these of rows (n, in)."""
    added = rows.index_select(0, index) @ delta.down.t() @ delta.up.t()
    result.index_add_(0, index, added.to(result.dtype))


def row_indices(adapters: Mapping[str, list[tuple[int, int]]], device: torch.device) -> dict[str, Tensor]:
    """The rows of each adapter, int64, from their ranges."""
    return {
        name: upload([row for start, stop in ranges for row in range(start, stop)], torch.int64, device)
        for name, ranges in adapters.items()
    }
