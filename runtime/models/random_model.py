"""Models of a given shape with random weights, made where they stay: for measuring without a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..kv_file import ModelIdentity
from ..weight_format import WeightFormat
from .checkpoint import StoredTensor, TensorReader
from .config import ModelConfig
from .decoder import Model
from .loader import expected_shapes, read_weights

_SPREAD = 0.02


def random_model(
    config: ModelConfig,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    weights: WeightFormat | None = None,
    seed: int = 0,
) -> Model:
    """A decoder with normally distributed matrices, norms that change nothing and biases of 0.

    What it computes and reads is what a checkpoint of this shape does. Equal arguments give equal weights on one kind
    of device, before they are rounded to the format of `weights`; the state of the device's random numbers is changed.
    """
    torch.manual_seed(seed)
    with _RandomTensors(config, dtype, torch.device(device)) as reader:
        read = read_weights(reader, config, weights)
    drawn = f"random {config!r} {seed} {weights}"
    return Model(config, read, ModelIdentity(f"random {config.architecture}", drawn))


class _RandomTensors(TensorReader):
    """Random numbers in the place of those in files."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        shapes = expected_shapes(config)
        super().__init__({name: StoredTensor(Path(), "", shape) for name, shape in shapes.items()}, dtype, device)

    def _stored(self, name: str) -> Tensor:
        shape = self._checkpoint[name].shape
        fresh = torch.empty(shape, dtype=self._target, device=self._device)
        if len(shape) > 1:
            return fresh.normal_(0, _SPREAD)
        return fresh.fill_(0 if name.endswith(".bias") else 1)
