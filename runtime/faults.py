"""Where a model's numbers went wrong, as far as the KV that it left behind tells."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ..ir.errors import BackendError
from .sequence import Sequence


def located(error: BackendError, sequence: Sequence) -> BackendError:
    """The error with the first layer whose keys or values of the sequence are not finite, if there is one."""
    parts = list(_parts(sequence))
    for layer in range(len(parts[0]) if parts else 0):
        if not all(bool(part[layer].isfinite().all()) for part in parts):
            before = f"the output of layer {layer - 1}" if layer else "the embedding"
            said = f"layer {layer} is the first whose keys or values are NaN or infinite; they come from {before}"
            return BackendError(f"{error.message} ({said})", help=_CAUSES)
    return error


_CAUSES = "the weights are damaged, or too large for the dtype (float16 ends at 65504): try another one"


def _parts(sequence: Sequence) -> Iterator[Tensor]:
    """The KV that was computed for a sequence, each (num_layers, 2, num_kv_heads, length, head_dim)."""
    if sequence.node is not None:
        yield from (node.extent.data for node in sequence.node.path())
    computed = sequence.computed - sequence.tail_start
    for extent in (sequence.prompt_extent, sequence.generated_extent):
        if extent is not None and computed > 0:
            length = min(computed, extent.room)
            yield extent.span(0, length)
            computed -= length
