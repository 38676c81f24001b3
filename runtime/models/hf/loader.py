"""From a model directory to a model of transformers, checked before and after it is loaded.

The architecture's layers are probed without weights first, then the files' headers are compared with the memory that
is free, then weights are read; at last a few tokens go through our attention and through the model's own, and must come
out the same: whatever a model's code mixes between tokens besides attention shows there.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ....ir.errors import ModelError
from ...kv_file import ModelIdentity
from ...pool import KVLayout, KVPool
from ..budget import check_room
from ..checkpoint import FLOATS, Checkpoint, digest, listed, read_checkpoint
from ..config import Values, architecture_of, dtype_of, refuse_quantized
from .interface import implementation
from .model import HFConfig, HFModel, prefix_batch
from .probe import probe

# Largest difference of two logits, in parts of how far logits lie apart, that rounding explains.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}
_CHECKED = 7
_STATE_KEYS = ("mamba_d_state", "mamba_d_conv", "mamba_num_heads", "ssm_state_size", "state_size", "conv_L_cache")
_ATTENTION_KINDS = {"full_attention", "sliding_attention"}


@dataclass(frozen=True, slots=True)
class Described:
    """A model that can run here, before its weights are read. kind: its class in transformers."""

    where: str
    kind: Any
    config: HFConfig
    dtype: torch.dtype | None

    def layout(self, dtype: torch.dtype, device: torch.device) -> KVLayout:
        """What its KV is kept in, where the configuration names no dtype in `dtype`. Raises ModelError."""
        layers = self.config.layers
        counts = sorted({layer.num_kv_heads for layer in layers})
        if len(counts) > 1:
            raise ModelError(
                f"{self.where} is not supported: its layers have {listed(list(map(str, counts)))} key heads"
            )
        size = max(max(layer.key_size, layer.value_size) for layer in layers)
        return KVLayout(len(layers), counts[0], size, dtype, device)


def describe(path: Path, values: Values) -> Described:
    """What the configuration says, if the model can run here. Raises ModelError with the reason if not."""
    where = f"{values.path}: the architecture {architecture_of(values)}"
    refuse_quantized(values)
    kind = _class(architecture_of(values), where)
    config = _config(path, values)
    _refuse(config, kind, where)
    layers = probe(_config(path, values), kind, where)
    told = HFConfig(architecture_of(values), config.vocab_size, _context(config), config.hidden_size, layers)
    return Described(where, kind, told, dtype_of(values))


def load_hf_model(
    path: Path, values: Values, *, dtype: torch.dtype | None, device: torch.device, kv_tokens: int | None
) -> HFModel:
    """The model in a directory, whose config.json is `values`; see `load_model`. Raises ModelError."""
    described = describe(path, values)
    checkpoint = read_checkpoint(path)
    target = dtype or described.dtype or _stored_dtype(checkpoint)
    layout = described.layout(target, device)
    taken = sum(prod(tensor.shape) for tensor in checkpoint.values()) * target.itemsize
    check_room(path, layout, taken, described.config.context_length, kv_tokens)
    loaded = _load(path, described.kind, target, device)
    config = described.config
    name = f"{path.resolve().name} ({config.architecture}, {len(config.layers)} layers)"
    ids = [number * 37 % config.vocab_size for number in range(1, _CHECKED + 1)]
    wanted = _own_logits(loaded, ids, device)
    model = HFModel(config, loaded, layout, ModelIdentity(name, _fingerprint(values, loaded)))
    _check_parity(model, ids, wanted, described.where)
    return model


def _stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    return next((FLOATS[tensor.dtype] for tensor in checkpoint.values() if tensor.dtype in FLOATS), torch.float32)


def _class(architecture: str, where: str) -> Any:
    known = {name for names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() for name in _as_tuple(names)}
    if architecture not in known:
        raise ModelError(
            f"{where} is not supported: transformers {transformers.__version__} knows no causal language model of that "
            "name",
            help="a newer transformers may; code that comes with a checkpoint is never run",
        )
    return getattr(transformers, architecture)


def _as_tuple(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _config(path: Path, values: Values) -> Any:
    try:
        with _quiet():
            return transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of many kinds, from wrong types to code that is not there
        raise ModelError(f"{values.path}: transformers does not take it: {error}") from error


def _refuse(config: Any, kind: Any, where: str) -> None:
    """Raises ModelError for what can be told from the configuration alone."""
    states = [key for key in _STATE_KEYS if getattr(config, key, None)]
    others = sorted(set(getattr(config, "layer_types", None) or ()) - _ATTENTION_KINDS)
    takes = inspect.signature(kind.forward).parameters
    for holds, reason in (
        (bool(getattr(config, "is_encoder_decoder", False)), "it is an encoder with a decoder"),
        (config.get_text_config() is not config, "it takes more than text"),
        (bool(getattr(config, "add_cross_attention", False)), "it attends to another sequence"),
        (bool(states), f"its layers keep a state that is no KV, which cannot be shared ({', '.join(states)})"),
        (bool(others), f"it has layers of other kinds than attention to all tokens or a window ({', '.join(others)})"),
        (bool(getattr(config, "alibi", False)), "its attention is biased by positions (ALiBi)"),
        ("position_ids" not in takes, "its code does not take the positions of tokens"),
    ):
        if holds:
            raise ModelError(
                f"{where} is not supported: {reason}", help="it can run behind a server (openai:MODEL@URL)"
            )


def _context(config: Any) -> int:
    """The most tokens of a sequence. Where embeddings change once a sequence is longer than some length, keys would
    depend on how long it becomes: that length is the most then."""
    longest = int(getattr(config, "max_position_embeddings", None) or 2048)
    parameters = getattr(config, "rope_parameters", None) or {}
    if parameters.get("rope_type") == "longrope":
        trained = parameters.get("original_max_position_embeddings")
        trained = trained or getattr(config, "original_max_position_embeddings", None)
        return min(longest, int(trained or longest))
    return longest


def _load(path: Path, kind: Any, dtype: torch.dtype, device: torch.device) -> Any:
    with _quiet():
        try:
            loaded, told = kind.from_pretrained(
                path,
                dtype=dtype,
                attn_implementation=implementation(kind.__name__),
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:
            raise ModelError(f"{path}: transformers cannot load it: {error}") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if told.get(what):
            names = sorted(map(str, told[what]))
            heading = f"{path}: the tensors do not fit the {kind.__name__} in config.json"
            raise ModelError(f"{heading}\n  {what.replace('_', ' ')}: {listed(names)}")
    return loaded.to(device).eval().requires_grad_(False)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no tables of tensors: what is wrong is raised."""
    said: Any = transformers.logging
    level, bars = said.get_verbosity(), said.is_progress_bar_enabled()
    said.set_verbosity(said.CRITICAL)
    said.disable_progress_bar()
    try:
        yield
    finally:
        said.set_verbosity(level)
        if bars:
            said.enable_progress_bar()


def _fingerprint(values: Values, loaded: Any) -> str:
    said = [json.dumps({key: value for key, value in values.values.items() if "dtype" not in key}, sort_keys=True)]
    said += [f"{name} {digest(tensor.cpu())}" for name, tensor in sorted(loaded.state_dict().items())]
    return hashlib.blake2b(" ".join(said).encode(), digest_size=16).hexdigest()


def _own_logits(loaded: Any, ids: list[int], device: torch.device) -> Tensor:
    """What the model says with attention of its own, float32 (len(ids), vocab)."""
    loaded.config._attn_implementation = "eager"
    with torch.no_grad():
        logits: Tensor = loaded(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0].float()
    return logits


def _check_parity(model: HFModel, ids: list[int], wanted: Tensor, where: str) -> None:
    """Raises ModelError where our attention gives other logits: all but three tokens at once, then one at a time."""
    extent = KVPool(model.layout, len(ids)).allocate(len(ids))
    cuts = [0, *range(len(ids) - 3, len(ids) + 1)]
    parts = [model.forward(prefix_batch(extent, ids, start, stop)) for start, stop in pairwise(cuts)]
    difference = (torch.cat(parts) - wanted).abs().max().item()
    spread = wanted.std().item()
    if not difference <= _TOLERANCE.get(model.dtype, 1e-3) * max(spread, 1e-6):
        raise ModelError(
            f"{where} is not supported: with our attention its logits differ by {difference:.3g} (they lie "
            f"{spread:.3g} apart), so its code mixes tokens outside of attention, or has other positions",
        )
