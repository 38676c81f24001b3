"""What a checkpoint's config.json says about a model of the Llama family, checked and in our own words.

Reads the Hugging Face format of the Llama family, as transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`) and
5 (`rope_parameters`, `dtype`) write it. What the decoder cannot do is refused here by name, never ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...ir.errors import ModelError
from .rope import RopeConfig, check_rope


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a decoder of the Llama family.

    context_length: the most tokens of a sequence. Where layers attend through a sliding window that is shorter than
    the positions the model was trained for, this is the window: up to there a window changes nothing.
    dtype: what config.json names, None when it names none.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    norm_eps: float
    rope: RopeConfig
    tied_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    dtype: torch.dtype | None


@dataclass(frozen=True, slots=True)
class _Family:
    """How an architecture differs from Llama, and what it assumes where config.json is silent."""

    qkv_bias: bool = False
    attention_bias_key: bool = False
    mlp_bias_key: bool = False
    qk_norm: bool = False
    head_dim: int | None = None
    window: int | None = None
    window_key: bool = False
    optional_window: bool = False


_FAMILIES = {
    "LlamaForCausalLM": _Family(attention_bias_key=True, mlp_bias_key=True),
    "MistralForCausalLM": _Family(window=4096, window_key=True),
    "Qwen2ForCausalLM": _Family(qkv_bias=True, window=4096, window_key=True, optional_window=True),
    "Qwen3ForCausalLM": _Family(
        attention_bias_key=True, qk_norm=True, head_dim=128, window=4096, window_key=True, optional_window=True
    ),
}

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ACTIVATIONS = ("silu", "swish")


class Values:
    """The object in config.json, read key by key; a wrong value is a ModelError that names file and key."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path = path
        self.values = values

    def get(self, key: str, default: object = None) -> Any:
        return self.values.get(key, default)

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.values.get(key)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(key, value, "a whole number of at least 1")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise self.error(key, value, "a number above 0")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, value, "true or false")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error(key, value, "an object")
        return value

    def error(self, key: str, value: object, want: str) -> ModelError:
        said = f"{key} is missing" if key not in self.values else f"{key} is {value!r}"
        return ModelError(f"{self.path}: {said}; it must be {want}")


def read_values(model_dir: Path) -> Values:
    """What model_dir/config.json says. Raises ModelError where it says nothing, or not which architecture."""
    if not model_dir.is_dir():
        raise ModelError(f"{model_dir} is not a directory", help="pass the folder that holds config.json")
    values = Values(model_dir / "config.json", read_json_object(model_dir / "config.json"))
    architecture_of(values)
    return values


def is_own(values: Values) -> bool:
    """Whether it is of an architecture that the decoder here computes."""
    return architecture_of(values) in _FAMILIES


def read_config(model_dir: Path) -> ModelConfig:
    """The configuration in model_dir/config.json. Raises ModelError that names the file and the key at fault."""
    values = read_values(model_dir)
    if not is_own(values):
        named = architecture_of(values)
        raise ModelError(f"{values.path}: the architecture {named} is not supported; supported: {_names(_FAMILIES)}")
    family = _FAMILIES[architecture_of(values)]
    _refuse_unsupported(values)
    return _apply_window(_shape(values, family), values, family)


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ModelError when it cannot be read or is something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        advice = f"a model directory in Hugging Face layout has a {path.name}"
        raise ModelError(f"{path} cannot be read: {error.strerror}", help=advice) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        advice = "the download may be cut off; fetch it again"
        raise ModelError(f"{path} is not valid JSON: {error}", help=advice) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object, found {type(value).__name__}")
    return value


def architecture_of(values: Values) -> str:
    """The name of the architecture."""
    named = values.get("architectures")
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        raise values.error("architectures", named, "a list of one architecture name")
    return named[0]


def _refuse_unsupported(values: Values) -> None:
    activation = values.get("hidden_act", "silu")
    if activation not in _ACTIVATIONS:
        raise values.error("hidden_act", activation, f"one of {', '.join(_ACTIVATIONS)}")
    refuse_quantized(values)


def refuse_quantized(values: Values) -> None:
    """Raises ModelError for a checkpoint whose weights are not numbers as they are."""
    if values.get("quantization_config") is not None:
        method = values.mapping("quantization_config").get("quant_method", "unknown")
        raise ModelError(
            f"{values.path}: the checkpoint is quantized ({method}), which is not supported",
            help="use the unquantized checkpoint",
        )


def _shape(values: Values, family: _Family) -> ModelConfig:
    num_heads = values.integer("num_attention_heads")
    num_kv_heads = values.integer("num_key_value_heads", num_heads)
    if num_heads % num_kv_heads:
        raise values.error("num_key_value_heads", num_kv_heads, f"a divisor of num_attention_heads ({num_heads})")
    hidden_size, context_length = values.integer("hidden_size"), values.integer("max_position_embeddings")
    head_dim = values.integer("head_dim", family.head_dim or hidden_size // num_heads)
    if head_dim % 2:
        raise values.error("head_dim", head_dim, "even, because rotary embeddings turn pairs")
    attention_bias = family.attention_bias_key and values.flag("attention_bias", False)
    return ModelConfig(
        architecture=architecture_of(values),
        vocab_size=values.integer("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=values.integer("intermediate_size"),
        num_layers=values.integer("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        context_length=context_length,
        norm_eps=values.number("rms_norm_eps", 1e-6),
        rope=_rope(values, context_length),
        tied_embeddings=values.flag("tie_word_embeddings", False),
        qkv_bias=family.qkv_bias or attention_bias,
        output_bias=attention_bias,
        mlp_bias=family.mlp_bias_key and values.flag("mlp_bias", False),
        qk_norm=family.qk_norm,
        dtype=dtype_of(values),
    )


def _apply_window(config: ModelConfig, values: Values, family: _Family) -> ModelConfig:
    """Shortens the context to the sliding window, where there is one: below it, a window hides nothing."""
    if not family.window_key or (family.optional_window and not values.flag("use_sliding_window", False)):
        return config
    if values.get("sliding_window", family.window) is None:
        return config
    window = values.integer("sliding_window", family.window)
    if family.optional_window and not _any_layer_slides(config, values):
        return config
    return replace(config, context_length=min(config.context_length, window))


def _any_layer_slides(config: ModelConfig, values: Values) -> bool:
    layer_types = values.get("layer_types")
    if layer_types is not None:
        return "sliding_attention" in layer_types
    first = values.get("max_window_layers", 28)
    return isinstance(first, int) and first < config.num_layers


def _rope(values: Values, context_length: int) -> RopeConfig:
    parameters = values.mapping("rope_scaling") or values.mapping("rope_parameters")
    defaults = {"original_max_position_embeddings": context_length, "partial_rotary_factor": 1.0, "rope_theta": 10000.0}
    # A value beside the parameters counts where they have none; but where the trained length stands beside them, as
    # some writers do, it is what counts.
    beside = {key: values.values[key] for key in defaults if values.get(key) is not None}
    merged = defaults | beside | {key: value for key, value in parameters.items() if value is not None}
    if "original_max_position_embeddings" in beside:
        merged["original_max_position_embeddings"] = beside["original_max_position_embeddings"]
    kind = merged.pop("rope_type", None) or merged.pop("type", None) or "default"
    merged.pop("type", None)
    return check_rope(RopeConfig(str(kind), context_length, merged), values.path)


def dtype_of(values: Values) -> torch.dtype | None:
    """The dtype that it names, if it names one."""
    name = values.get("dtype") or values.get("torch_dtype")
    if name is None:
        return None
    if not isinstance(name, str) or name not in _DTYPES:
        key = "dtype" if values.get("dtype") else "torch_dtype"
        raise values.error(key, name, f"one of {_names(_DTYPES)}")
    return _DTYPES[name]


def _names(table: dict[str, Any]) -> str:
    return ", ".join(table)
