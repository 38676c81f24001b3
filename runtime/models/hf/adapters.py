"""Adapters of a model of transformers: what they add is added behind the linear layers that they change, by hooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from ..adapters import Adapter, Delta, add_to_rows, check_layers, check_sizes


class HookedAdapters:
    """The adapters of a model, by name. All of a batch's rows are one sequence to its layers.

    used: the layers to which something was added so far.
    """

    def __init__(self, language_model: Any) -> None:
        inside = f"{language_model.base_model_prefix}."
        self._linears: dict[str, torch.nn.Module] = {
            name: module
            for name, module in language_model.named_modules()
            if name.startswith(inside) and isinstance(module, torch.nn.Linear | Conv1D)
        }
        # By layer and adapter.
        self._deltas: dict[str, dict[str, Delta]] = {}
        self._rows: Mapping[str, Tensor] = {}
        self.used: set[str] = set()
        self.tags: dict[str, int] = {}

    def add(self, name: str, adapter: Adapter) -> None:
        """Takes an adapter. Raises ModelError for one that does not fit the model."""
        check_layers(adapter, self._linears)
        for layer in adapter.deltas:
            check_sizes(adapter, layer, _size(self._linears[layer]))
        for layer, delta in adapter.deltas.items():
            if layer not in self._deltas:
                self._linears[layer].register_forward_hook(partial(self._add, layer))
            self._deltas.setdefault(layer, {})[name] = delta
        self.tags[name] = adapter.tag

    @contextmanager
    def on(self, rows: Mapping[str, Tensor]) -> Iterator[None]:
        """While it runs, these rows, int64, have these adapters."""
        self._rows = rows
        try:
            yield
        finally:
            self._rows = {}

    def _add(self, layer: str, _: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for name, index in self._rows.items():
            delta = self._deltas[layer].get(name)
            if delta is not None:
                self.used.add(layer)
                rows = inputs[0].reshape(-1, inputs[0].shape[-1])
                add_to_rows(output.view(-1, output.shape[-1]), rows, index, delta)
        return output


def _size(linear: torch.nn.Module) -> tuple[int, int]:
    """A layer's (out, in); GPT-2's keep their weights the other way round."""
    assert isinstance(linear.weight, Tensor)
    first, second = linear.weight.shape
    return (second, first) if isinstance(linear, Conv1D) else (first, second)
