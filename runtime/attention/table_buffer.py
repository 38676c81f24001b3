"""Tables of numbers on the host, and their copy on the device, which one transfer brings up to date."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from .tables import Table

# Tables begin at a multiple of this many numbers (128 bytes), since kernels are compiled anew for other alignments.
_ALIGNMENT = 16


class TableBuffer:
    """Tables of fixed shapes in one piece of the device's memory. tables: int64, by name."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], device: torch.device) -> None:
        self._places: dict[str, slice] = {}
        end = 0
        for name, shape in shapes.items():
            size = int(np.prod(shape))
            self._places[name] = slice(end, end + size)
            end += -(-size // _ALIGNMENT) * _ALIGNMENT
        self._memory = torch.zeros(end, dtype=torch.int64, device=device)
        self.tables = {name: self._memory[place].view(shapes[name]) for name, place in self._places.items()}

    def fill(self, tables: Mapping[str, Table]) -> None:
        """Puts these numbers in front in the tables, and zeros behind them, when the device gets there."""
        # Memory for the host to write to is kept by torch until the copy out of it has ended.
        host = torch.zeros(self._memory.shape, dtype=torch.int64, pin_memory=self._memory.is_cuda)
        numbers = host.numpy()
        for name, table in tables.items():
            start = self._places[name].start
            numbers[start : start + table.size] = table.ravel()
        self._memory.copy_(host, non_blocking=True)
