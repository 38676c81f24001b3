"""Which implementation of the decoder's operations serves a model."""

from __future__ import annotations

import logging
from importlib.util import find_spec

import torch

from .config import ModelConfig
from .native import NativeOperations
from .native_build import NAMES, library
from .operations import Operations, TorchOperations

_log = logging.getLogger(__name__)


def choose_operations(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Operations:
    """The fastest operations that serve a model on this device, in this dtype."""
    if device.type == "cpu" and dtype in NAMES and (kernels := library()) is not None:
        return NativeOperations(config, dtype, kernels)
    if device.type == "cuda":
        if find_spec("triton") is not None:
            # Triton reads its settings when it is imported, which a process without a GPU need not wait for.
            from .triton_operations import TritonOperations

            return TritonOperations(config, device)
        _log.warning("triton is not installed, so decoding is slower: torch's builds for CUDA come with it")
    return TorchOperations(config, device, dtype)
