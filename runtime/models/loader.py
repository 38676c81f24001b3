"""From a model directory to a Model: config.json and safetensors, in one file or in shards with an index.

Files are mapped and read tensor by tensor. Before anything is converted, every tensor's presence, shape and dtype are
checked against the configuration, and all that is wrong is said at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...ir.errors import ModelError
from ..kv_file import ModelIdentity
from .config import ModelConfig, read_config, read_json_object
from .decoder import LayerWeights, Model, Weights
from .linear import Linear, make_linear
from .rope import interleave_pairs

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
# Old exports carry the frequencies as tensors; they follow from the configuration.
_IGNORED_SUFFIX = ".rotary_emb.inv_freq"
_MOST_LISTED = 8

Shapes = dict[str, tuple[int, ...]]


def load_model(path: Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Model:
    """The model in a directory, converted to `dtype` (None: the one that the checkpoint names, else stores).

    Raises ModelError that names the file, key or tensor at fault.
    """
    config = read_config(path)
    with ExitStack() as stack:
        checkpoint = _open_checkpoint(path, stack)
        _check_tensors(checkpoint, config, path)
        target = dtype or config.dtype or _FLOATS[checkpoint.dtype("model.embed_tokens.weight")]
        weights = _read_weights(_Reader(checkpoint, target, torch.device(device)), config)
        return Model(config, weights, _identity(path, config, checkpoint))


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """Open files, and for every tensor the one that holds it."""

    files: dict[str, Any]

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.files[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        return str(self.files[name].get_slice(name).get_dtype())


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads tensors in the dtype and on the device that the model will have."""

    checkpoint: _Checkpoint
    target: torch.dtype
    device: torch.device

    def tensor(self, name: str) -> Tensor:
        stored: Tensor = self.checkpoint.files[name].get_tensor(name)
        # A copy, because what is stored is a map of the file, and the file may change while the model lives.
        return stored.to(device=self.device, dtype=self.target, copy=True)

    def concatenated(self, names: Iterable[str]) -> Tensor:
        return torch.cat([self.tensor(name) for name in names])


def _identity(model_dir: Path, config: ModelConfig, checkpoint: _Checkpoint) -> ModelIdentity:
    """Equal for copies of a model, wherever they lie, and different when its configuration or its weights are.

    Of each matrix about one number in each row is looked at: training changes nearly all of them.
    """
    digest = hashlib.blake2b(repr(replace(config, dtype=None)).encode(), digest_size=16)
    for name in sorted(_expected_shapes(config)):
        stored: Tensor = checkpoint.files[name].get_tensor(name)
        sampled = stored.flatten()[:: stored.shape[-1] + 1 if stored.dim() > 1 else 1].contiguous()
        digest.update(f"{name} {stored.dtype} {tuple(stored.shape)} ".encode())
        digest.update(sampled.view(torch.uint8).numpy().data)
    name = f"{model_dir.resolve().name} ({config.architecture}, {config.num_layers} layers)"
    return ModelIdentity(name, digest.hexdigest())


def _open_checkpoint(model_dir: Path, stack: ExitStack) -> _Checkpoint:
    if (model_dir / _INDEX).exists():
        return _open_shards(model_dir, stack)
    if not (model_dir / _SINGLE).exists():
        raise ModelError(
            f"{model_dir} holds neither {_SINGLE} nor {_INDEX}",
            help="only safetensors are read; convert other formats with transformers' save_pretrained",
        )
    file = _open_file(model_dir / _SINGLE, stack)
    return _Checkpoint(dict.fromkeys(file.keys(), file))


def _open_shards(model_dir: Path, stack: ExitStack) -> _Checkpoint:
    """The files that the index names. Raises ModelError for missing files and for tensors that a file lacks."""
    index = model_dir / _INDEX
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ModelError(f"{index}: weight_map must map tensor names to file names")
    names = sorted(set(places.values()))
    absent = [name for name in names if not (model_dir / name).exists()]
    if absent:
        raise ModelError(f"{index} names files that are not there: {_listed(absent)}")
    shards = {name: _open_file(model_dir / name, stack) for name in names}
    held = {name: set(shard.keys()) for name, shard in shards.items()}
    lacking = [f"{tensor} (in {name})" for tensor, name in places.items() if tensor not in held[name]]
    if lacking:
        raise ModelError(f"{index} names tensors that their files do not hold: {_listed(lacking)}")
    return _Checkpoint({tensor: shards[name] for tensor, name in places.items()})


def _open_file(path: Path, stack: ExitStack) -> Any:
    try:
        return stack.enter_context(safe_open(path, framework="pt"))
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file: {error}", help="the download may be cut off; fetch it again"
        ) from error


def _check_tensors(checkpoint: _Checkpoint, config: ModelConfig, model_dir: Path) -> None:
    """Raises ModelError that lists all missing, unexpected and wrong tensors."""
    wanted = _expected_shapes(config)
    found = {name for name in checkpoint.files if not name.endswith(_IGNORED_SUFFIX)}
    optional = {"lm_head.weight"} if config.tied_embeddings else set()
    problems = [
        _problem("missing", sorted(wanted.keys() - found)),
        _problem("unexpected", sorted(found - wanted.keys() - optional)),
        _problem("of another shape", _wrong_shapes(checkpoint, wanted)),
        _problem("of a dtype that is not supported", _wrong_dtypes(checkpoint, wanted)),
    ]
    said = [problem for problem in problems if problem]
    if said:
        heading = f"{model_dir}: the tensors do not fit the {config.architecture} in config.json"
        raise ModelError("\n  ".join([heading, *said]))


def _wrong_shapes(checkpoint: _Checkpoint, wanted: Shapes) -> list[str]:
    shapes = {name: checkpoint.shape(name) for name in wanted if name in checkpoint.files}
    return [f"{name} (is {shape}, must be {wanted[name]})" for name, shape in shapes.items() if shape != wanted[name]]


def _wrong_dtypes(checkpoint: _Checkpoint, wanted: Shapes) -> list[str]:
    dtypes = {name: checkpoint.dtype(name) for name in wanted if name in checkpoint.files}
    supported = " or ".join(_FLOATS)
    return [f"{name} (is {dtype}, must be {supported})" for name, dtype in dtypes.items() if dtype not in _FLOATS]


def _problem(what: str, entries: list[str]) -> str:
    return f"{what}: {_listed(entries)}" if entries else ""


def _listed(entries: list[str]) -> str:
    more = len(entries) - _MOST_LISTED
    return ", ".join(entries[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _expected_shapes(config: ModelConfig) -> Shapes:
    """Every tensor that the checkpoint must hold."""
    outer = (config.vocab_size, config.hidden_size)
    shapes: Shapes = {"model.embed_tokens.weight": outer, "model.norm.weight": (config.hidden_size,)}
    if not config.tied_embeddings:
        shapes["lm_head.weight"] = outer
    for layer in range(config.num_layers):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in _layer_shapes(config).items()}
    return shapes


def _layer_shapes(config: ModelConfig) -> Shapes:
    hidden, inner = config.hidden_size, config.intermediate_size
    query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    matrices = {
        "self_attn.q_proj": (query, hidden, config.qkv_bias),
        "self_attn.k_proj": (key, hidden, config.qkv_bias),
        "self_attn.v_proj": (key, hidden, config.qkv_bias),
        "self_attn.o_proj": (hidden, query, config.output_bias),
        "mlp.gate_proj": (inner, hidden, config.mlp_bias),
        "mlp.up_proj": (inner, hidden, config.mlp_bias),
        "mlp.down_proj": (hidden, inner, config.mlp_bias),
    }
    shapes: Shapes = {f"{name}.weight": (rows, columns) for name, (rows, columns, _) in matrices.items()}
    shapes |= {f"{name}.bias": (rows,) for name, (rows, _, has_bias) in matrices.items() if has_bias}
    shapes |= {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
    if config.qk_norm:
        shapes |= {"self_attn.q_norm.weight": (config.head_dim,), "self_attn.k_norm.weight": (config.head_dim,)}
    return shapes


def _read_weights(reader: _Reader, config: ModelConfig) -> Weights:
    embedding = reader.tensor("model.embed_tokens.weight")
    return Weights(
        embedding=embedding,
        layers=tuple(_read_layer(reader, config, f"model.layers.{layer}.") for layer in range(config.num_layers)),
        norm=reader.tensor("model.norm.weight"),
        head=make_linear(embedding if config.tied_embeddings else reader.tensor("lm_head.weight"), is_head=True),
    )


def _read_layer(reader: _Reader, config: ModelConfig, prefix: str) -> LayerWeights:
    attention, mlp = f"{prefix}self_attn.", f"{prefix}mlp."
    gate_up = [f"{mlp}gate_proj.", f"{mlp}up_proj."]
    return LayerWeights(
        input_norm=reader.tensor(f"{prefix}input_layernorm.weight"),
        qkv=make_linear(
            _read_qkv(reader, config, attention, "weight"),
            _read_qkv(reader, config, attention, "bias") if config.qkv_bias else None,
        ),
        qk_norm=_read_qk_norm(reader, config, attention) if config.qk_norm else None,
        output=_read_linear(reader, [f"{attention}o_proj."], has_bias=config.output_bias),
        mlp_norm=reader.tensor(f"{prefix}post_attention_layernorm.weight"),
        gate_up=_read_linear(reader, gate_up, has_bias=config.mlp_bias),
        down=_read_linear(reader, [f"{mlp}down_proj."], has_bias=config.mlp_bias),
    )


def _read_linear(reader: _Reader, prefixes: list[str], *, has_bias: bool) -> Linear:
    """One layer that gives what several give, beside one another."""
    bias = reader.concatenated(f"{prefix}bias" for prefix in prefixes) if has_bias else None
    return make_linear(reader.concatenated(f"{prefix}weight" for prefix in prefixes), bias)


def _read_qkv(reader: _Reader, config: ModelConfig, attention: str, kind: str) -> Tensor:
    query, key, value = (reader.tensor(f"{attention}{name}_proj.{kind}") for name in "qkv")
    return torch.cat([interleave_pairs(query, config.head_dim), interleave_pairs(key, config.head_dim), value])


def _read_qk_norm(reader: _Reader, config: ModelConfig, attention: str) -> Tensor:
    """The norms' weights, one row for every query head and then every key head."""
    rows = [(f"{attention}q_norm.weight", config.num_heads), (f"{attention}k_norm.weight", config.num_kv_heads)]
    return torch.cat([interleave_pairs(reader.tensor(name), config.head_dim).expand(count, -1) for name, count in rows])
