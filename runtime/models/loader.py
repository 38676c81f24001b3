"""From a model directory to a Model: config.json and safetensors, in one file or in shards with an index.

Before anything is read, every tensor's presence, shape and dtype are checked against the configuration, and all that is
wrong is said at once. Then a layer is read at a time, so that no more than one is there twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from ...ir.errors import ModelError
from ..kv_file import ModelIdentity
from ..pool import KVLayout
from ..weight_format import WeightFormat, check_format
from .budget import check_memory
from .checkpoint import FLOATS, Change, Checkpoint, TensorReader, read_checkpoint
from .config import ModelConfig, Values, architecture_of, is_own, read_config, read_values
from .decoder import LayerWeights, Model, Weights
from .linear import Linear, make_linear
from .quantized import make_quantized_linear
from .rope import interleave_pairs

if TYPE_CHECKING:
    from .hf.model import HFModel

# Old exports carry the frequencies as tensors; they follow from the configuration.
_IGNORED_SUFFIX = ".rotary_emb.inv_freq"
_IN_LAYER = re.compile(r"(.*?\blayers\.)(\d+)(\..+)")
# A checkpoint of something else may have any number of tensors with names of its own.
_MOST_ENTRIES = 20

Shapes: TypeAlias = dict[str, tuple[int, ...]]
_Problems: TypeAlias = list[tuple[str, str]]


def load_model(
    path: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    weights: WeightFormat | None = None,
    kv_tokens: int | None = None,
) -> Model | HFModel:
    """The model in a directory, converted to `dtype` (None: the one that the checkpoint names, else stores).

    What is not of the Llama family is computed by transformers' code (hf/). weights: what the linear layers of the
    decoder's blocks are rounded to, which is approximate; embedding, head, norms and biases stay in the dtype.
    kv_tokens: so many tokens of KV are to fit beside it. Raises ModelError that names the file, key or tensor at fault,
    or says what would fit the memory.
    """
    check_format(weights)
    values = read_values(path)
    if not is_own(values):
        _need_transformers(values, weights)
        from .hf.loader import load_hf_model

        return load_hf_model(path, values, dtype=dtype, device=torch.device(device), kv_tokens=kv_tokens)
    return load_own_model(path, dtype=dtype, device=device, weights=weights, kv_tokens=kv_tokens)


def load_own_model(
    path: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    weights: WeightFormat | None = None,
    kv_tokens: int | None = None,
) -> Model:
    """See `load_model`: a model of the Llama family."""
    config = read_config(path)
    checkpoint = read_checkpoint(path)
    _check_tensors(checkpoint, config, path)
    target = dtype or config.dtype or FLOATS[checkpoint["model.embed_tokens.weight"].dtype]
    layout = _layout(config, target, torch.device(device))
    needed = {name: checkpoint[name] for name in expected_shapes(config)}
    check_memory(path, needed, layout, config, kv_tokens, weights)
    with TensorReader(checkpoint, target, torch.device(device)) as reader:
        read = read_weights(reader, config, weights)
    return Model(config, read, _identity(path, config, reader, weights))


def read_layout(path: Path, dtype: torch.dtype | None = None) -> tuple[KVLayout, int]:
    """What `load_model` would keep KV in, and the most tokens of a sequence. Reads no weights. Raises ModelError."""
    values = read_values(path)
    if is_own(values):
        config = read_config(path)
        return _layout(config, dtype or config.dtype or torch.float32, torch.device("cpu")), config.context_length
    _need_transformers(values, None)
    from .hf.loader import describe

    described = describe(path, values)
    return described.layout(dtype or torch.float32, torch.device("cpu")), described.config.context_length


def _layout(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> KVLayout:
    return KVLayout(config.num_layers, config.num_kv_heads, config.head_dim, dtype, device)


def _need_transformers(values: Values, weights: WeightFormat | None) -> None:
    """Raises ModelError where transformers' code cannot serve a model."""
    named = f"{values.path}: the architecture {architecture_of(values)}"
    if weights is not None:
        raise ModelError(f"{named} has its weights as they are: {weights} is for the Llama family only")
    if find_spec("transformers") is None:
        raise ModelError(f"{named} runs through transformers, which is not installed", help="pip install 'ramify[hf]'")


def _identity(
    model_dir: Path, config: ModelConfig, reader: TensorReader, weights: WeightFormat | None
) -> ModelIdentity:
    """Equal for copies of a model, wherever they lie, and different when its configuration or its weights are."""
    said = repr(replace(config, dtype=None)) + reader.fingerprint() + (weights or "")
    kept = f", {weights} weights" if weights else ""
    name = f"{model_dir.resolve().name} ({config.architecture}, {config.num_layers} layers{kept})"
    return ModelIdentity(name, hashlib.blake2b(said.encode(), digest_size=16).hexdigest())


def _check_tensors(checkpoint: Checkpoint, config: ModelConfig, model_dir: Path) -> None:
    """Raises ModelError that lists all missing, unexpected and wrong tensors."""
    wanted = expected_shapes(config)
    found = {name for name in checkpoint if not name.endswith(_IGNORED_SUFFIX)}
    optional = {"lm_head.weight"} if config.tied_embeddings else set()
    problems = [
        _problem("missing", [(name, "") for name in wanted if name not in found]),
        _problem("unexpected", [(name, "") for name in checkpoint if name in found - wanted.keys() - optional]),
        _problem("of another shape", _wrong_shapes(checkpoint, wanted)),
        _problem("of a dtype that is not supported", _wrong_dtypes(checkpoint, wanted)),
    ]
    said = [line for problem in problems for line in problem]
    if said:
        heading = f"{model_dir}: the tensors do not fit the {config.architecture} in config.json"
        raise ModelError("\n  ".join([heading, *said]))


def _wrong_shapes(checkpoint: Checkpoint, wanted: Shapes) -> _Problems:
    shapes = {name: checkpoint[name].shape for name in wanted if name in checkpoint}
    return [(name, f" is {shape}, must be {wanted[name]}") for name, shape in shapes.items() if shape != wanted[name]]


def _wrong_dtypes(checkpoint: Checkpoint, wanted: Shapes) -> _Problems:
    dtypes = {name: checkpoint[name].dtype for name in wanted if name in checkpoint}
    supported = " or ".join(FLOATS)
    return [(name, f" is {dtype}, must be {supported}") for name, dtype in dtypes.items() if dtype not in FLOATS]


def _problem(what: str, tensors: _Problems) -> list[str]:
    """All tensors with the same problem; those that differ only in their layer are one entry."""
    layers: dict[tuple[str, str, str], list[int]] = {}
    for name, detail in tensors:
        match = _IN_LAYER.fullmatch(name)
        key = (name, "", detail) if match is None else (match[1], match[3], detail)
        layers.setdefault(key, []).extend([] if match is None else [int(match[2])])
    entries = [f"{before}{_ranges(numbers)}{after}{detail}" for (before, after, detail), numbers in layers.items()]
    more = len(entries) - _MOST_ENTRIES
    return [f"{what}: {entry}" for entry in entries[:_MOST_ENTRIES]] + ([f"{what}: {more} more"] if more > 0 else [])


def _ranges(numbers: list[int]) -> str:
    """Numbers as in "0-3,7"."""
    starts = [n for n in sorted(numbers) if n - 1 not in numbers]
    ends = [n for n in sorted(numbers) if n + 1 not in numbers]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def expected_shapes(config: ModelConfig) -> Shapes:
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


def read_weights(reader: TensorReader, config: ModelConfig, weights: WeightFormat | None = None) -> Weights:
    """All weights, a layer at a time."""
    embedding = reader.tensor("model.embed_tokens.weight")
    return Weights(
        embedding=embedding,
        layers=tuple(_read_layer(reader, config, layer, weights) for layer in range(config.num_layers)),
        norm=reader.tensor("model.norm.weight"),
        head=make_linear(embedding if config.tied_embeddings else reader.tensor("lm_head.weight"), is_head=True),
    )


def _read_layer(reader: TensorReader, config: ModelConfig, layer: int, weights: WeightFormat | None) -> LayerWeights:
    reader.close()  # what was mapped so far is not needed any more
    prefix = f"model.layers.{layer}."
    attention, mlp = f"{prefix}self_attn.", f"{prefix}mlp."
    linear = partial(_read_linear, reader, weights)
    turned = partial(interleave_pairs, head_dim=config.head_dim)
    return LayerWeights(
        input_norm=reader.tensor(f"{prefix}input_layernorm.weight"),
        qkv=linear([f"{attention}{name}_proj." for name in "qkv"], config.qkv_bias, [turned, turned, None]),
        qk_norm=_read_qk_norm(reader, config, attention) if config.qk_norm else None,
        output=linear([f"{attention}o_proj."], config.output_bias),
        mlp_norm=reader.tensor(f"{prefix}post_attention_layernorm.weight"),
        gate_up=linear([f"{mlp}gate_proj.", f"{mlp}up_proj."], config.mlp_bias),
        down=linear([f"{mlp}down_proj."], config.mlp_bias),
    )


def _read_linear(
    reader: TensorReader,
    weights: WeightFormat | None,
    prefixes: list[str],
    has_bias: bool,
    changes: Sequence[Change | None] = (),
) -> Linear:
    """One layer that gives what several give, beside one another."""
    names = [f"{prefix}weight" for prefix in prefixes]
    weight = reader.concatenated(names, changes)
    bias = reader.concatenated([f"{prefix}bias" for prefix in prefixes], changes) if has_bias else None
    if weights is None:
        return make_linear(weight, bias)
    for name, part in zip(names, weight.split_with_sizes(reader.rows(names)), strict=True):
        if not part.isfinite().all():
            raise _not_finite(reader.file(name), name, weight.dtype, weights)
    return make_quantized_linear(weight, bias, weights)


def _not_finite(file: Path, name: str, dtype: torch.dtype, weights: WeightFormat) -> ModelError:
    held = str(dtype).removeprefix("torch.")
    return ModelError(
        f"{file}: {name} has numbers in {held} that are NaN or infinite, and {weights} has none such",
        help="the weights are damaged, or too large for the dtype (float16 ends at 65504): try another one",
    )


def _read_qk_norm(reader: TensorReader, config: ModelConfig, attention: str) -> Tensor:
    """The norms' weights, one row for every query head and then every key head."""
    rows = [(f"{attention}q_norm.weight", config.num_heads), (f"{attention}k_norm.weight", config.num_kv_heads)]
    return torch.cat([interleave_pairs(reader.tensor(name), config.head_dim).expand(count, -1) for name, count in rows])
