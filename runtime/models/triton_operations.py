"""The decoder's operations on a GPU: Triton's kernels (runtime/kernels), given tables of addresses.

What a batch means for attention is worked out on the host once a step, as numbers of one buffer that goes to the device
in one copy. A layer then is a norm, heads turned and stored, two launches of attention (narrow and wide tiles), a merge
and a gate, beside its matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..attention.items import NARROW_ROWS, WIDE_ROWS, Cutter
from ..attention.table_buffer import TableBuffer
from ..attention.tables import Table, meetings, row_targets
from ..batch import Batch
from ..kernels.attention import attend_items, merge_parts
from ..kernels.gate import gate
from ..kernels.norm import norm
from ..kernels.rotary import turn_and_store
from ..kernels.shapes import HeadShape
from .config import ModelConfig
from .operations import Step


class TritonOperations:
    """Kernels for this model. num_processors: those that are to be kept busy (None: the device's).

    On a CPU they need Triton's interpreter, which is for tests.
    """

    def __init__(self, config: ModelConfig, device: torch.device, num_processors: int | None = None) -> None:
        self.shape = HeadShape(config.num_heads, config.num_kv_heads, config.head_dim)
        self.device = device
        self._eps = config.norm_eps
        self._cutter = Cutter(self.shape.group, self.shape.num_kv_heads, num_processors or _num_processors(device))

    def norm(self, rows: Tensor, weight: Tensor) -> Tensor:
        """See Operations."""
        return norm(rows.contiguous(), weight, self._eps)

    def gate(self, gate_up: Tensor) -> Tensor:
        """See Operations."""
        return gate(gate_up)

    def step(self, batch: Batch, factors: Tensor) -> Step:
        """See Operations."""
        tables = self.tables(batch)
        buffer = TableBuffer({name: table.shape for name, table in tables.items()}, self.device)
        buffer.fill(tables)
        return self.step_of(buffer.tables, factors, int(tables["begins"][-1]))

    def tables(self, batch: Batch) -> dict[str, Table]:
        """See TableOperations: `targets` of tables.row_targets, and the Items by their names."""
        num_rows = batch.token_ids.numel()
        items = self._cutter.cut(*meetings(batch.reads), num_rows)
        return {"targets": row_targets(batch.writes, num_rows), **items._asdict()}

    def step_of(self, tables: Mapping[str, Tensor], factors: Tensor, num_slots: int) -> Step:
        """See TableOperations."""
        return _TritonStep(self.shape, self._cutter, self._eps, tables, factors, num_slots)


class _TritonStep:
    def __init__(
        self,
        shape: HeadShape,
        cutter: Cutter,
        eps: float,
        tables: Mapping[str, Tensor],
        factors: Tensor,
        num_slots: int,
    ) -> None:
        self._shape, self._cutter, self._eps = shape, cutter, eps
        self._tables = tables
        self._factors = torch.view_as_real(factors).contiguous()
        self._sums = torch.empty(num_slots, shape.num_heads, device=factors.device)
        self._parts = torch.empty(num_slots, shape.num_heads, shape.head_dim, device=factors.device)

    def attend(self, fused: Tensor, layer: int, qk_norm: Tensor | None) -> Tensor:
        """See Step."""
        tables, shape = self._tables, self._shape
        turn_and_store(fused, qk_norm, self._factors, tables["targets"], layer, shape, self._eps)
        output = fused.new_empty(fused.shape[0], shape.num_heads * shape.head_dim)
        for kind, items in ((WIDE_ROWS, tables["wide"]), (NARROW_ROWS, tables["narrow"])):
            if len(items):
                rows = self._cutter.tile_rows(kind)
                attend_items(fused, items, tables["entries"], output, self._parts, self._sums, layer, shape, kind, rows)
        if len(self._sums):
            merge_parts(self._parts, self._sums, tables["begins"], output, shape)
        return output


def _num_processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
