"""Rotary position embeddings: the frequencies of each scaling scheme, and the rotation itself.

Channels i and i + head_dim / 2 of a head form a pair that turns by position * frequency[i]. The loader moves each pair
side by side (`interleave_pairs`), so that turning a head is one multiplication of complex numbers. Scores are products
of queries and keys that are both moved, so they do not change.
Schemes: linear (position interpolation, arXiv 2306.15595), llama3 (Llama 3.1), yarn (arXiv 2309.00071), and dynamic,
which is the unscaled embedding up to the context length and is not stretched beyond it, because then a token's keys
would depend on how long its sequence becomes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...ir.errors import ModelError


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """A scheme's name and its parameters by the names that config.json gives them, `rope_theta` among them."""

    kind: str
    context_length: int
    parameters: dict[str, Any]

    def number(self, key: str, default: float | None = None) -> float:
        value = self.parameters.get(key, default)
        assert value is not None, f"{key} was not checked"
        return float(value)


@dataclass(frozen=True, slots=True)
class _Scheme:
    """How frequencies (head_dim / 2,) are scaled, and which parameters that needs."""

    scale: Callable[[Tensor, RopeConfig], Tensor]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def check_rope(rope: RopeConfig, path: Path) -> RopeConfig:
    """The same configuration, or ModelError naming what in the file `path` is not supported or missing."""
    scheme = _SCHEMES.get(rope.kind)
    if scheme is None:
        raise ModelError(f"{path}: the rope_type {rope.kind!r} is not supported; supported: {', '.join(_SCHEMES)}")
    if rope.parameters.get("partial_rotary_factor") != 1.0:
        raise ModelError(f"{path}: partial_rotary_factor {rope.parameters['partial_rotary_factor']!r} is not supported")
    for key in ("rope_theta", *scheme.required, *(key for key in scheme.optional if key in rope.parameters)):
        value = rope.parameters.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ModelError(f"{path}: {rope.kind} rotary embeddings need {key} to be a number above 0, got {value!r}")
    return rope


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Tensor:
    """How far each pair turns per position, in radians: float32 (head_dim / 2,)."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    return _SCHEMES[rope.kind].scale(1.0 / rope.number("rope_theta") ** exponents, rope)


def magnitude(rope: RopeConfig) -> float:
    """What rotated queries and keys are multiplied by: 1 but for yarn, which sharpens attention that way."""
    if rope.kind != "yarn":
        return 1.0
    if "attention_factor" in rope.parameters:
        return rope.number("attention_factor")
    factor = _yarn_factor(rope)
    if "mscale" in rope.parameters and "mscale_all_dim" in rope.parameters:
        return _sharpening(factor, rope.number("mscale")) / _sharpening(factor, rope.number("mscale_all_dim"))
    return _sharpening(factor, 1.0)


def rotations(positions: Tensor, frequencies: Tensor, magnitude: float) -> Tensor:
    """The factors that turn one row's heads: complex64 (n, 1, head_dim / 2) for positions (n,)."""
    angles = torch.outer(positions.float(), frequencies)
    return torch.polar(torch.full_like(angles, magnitude), angles).unsqueeze(1)


def rotate_(heads: Tensor, factors: Tensor) -> None:
    """Turns heads (n, heads, head_dim), whose pairs lie side by side, in place by factors from `rotations`."""
    pairs = heads.view(*heads.shape[:-1], -1, 2)
    if heads.dtype == torch.float32:
        torch.view_as_complex(pairs).mul_(factors)
    else:
        pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()).mul_(factors)))


def interleave_pairs(weight: Tensor, head_dim: int) -> Tensor:
    """Moves the output channels of a query or key weight so that the two channels of each pair lie side by side.

    weight: (heads * head_dim, ...), also a bias or a norm's weight.
    """
    halves = weight.reshape(-1, 2, head_dim // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def _unscaled(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    return frequencies


def _linear(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    return frequencies / rope.number("factor")


def _llama3(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    """Keeps fast pairs, slows slow ones by `factor`, and goes smoothly from one to the other in between."""
    turns = rope.number("original_max_position_embeddings") * frequencies / (2 * math.pi)
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return torch.lerp(frequencies / rope.number("factor"), frequencies, kept)


def _yarn(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    """Keeps pairs that turn more than beta_fast times within the trained length, slows those below beta_slow."""
    low = _yarn_pair(rope, rope.number("beta_fast", 32), len(frequencies))
    high = _yarn_pair(rope, rope.number("beta_slow", 1), len(frequencies))
    if rope.parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * len(frequencies) - 1)
    high += 0.001 if low == high else 0
    slowed = ((torch.arange(len(frequencies), dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return torch.lerp(frequencies, frequencies / _yarn_factor(rope), slowed)


def _yarn_pair(rope: RopeConfig, turns: float, num_pairs: int) -> float:
    """Which pair, counted from the fastest, turns `turns` times within the trained length."""
    trained = rope.number("original_max_position_embeddings")
    return num_pairs * math.log(trained / (turns * 2 * math.pi)) / math.log(rope.number("rope_theta"))


def _yarn_factor(rope: RopeConfig) -> float:
    return rope.number("factor", rope.context_length / rope.number("original_max_position_embeddings"))


def _sharpening(factor: float, scale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


_TRAINED = "original_max_position_embeddings"
_SCHEMES = {
    "default": _Scheme(_unscaled),
    "dynamic": _Scheme(_unscaled),
    "linear": _Scheme(_linear, ("factor",)),
    "llama3": _Scheme(_llama3, ("factor", "low_freq_factor", "high_freq_factor", _TRAINED)),
    "yarn": _Scheme(
        _yarn, (_TRAINED,), ("factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")
    ),
}
