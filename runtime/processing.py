"""The user's own functions between the model's logits and the choice of a token (`gen(processors=[...])`).

A processor is called for each row, or, if it has an attribute `batched` that is true, once for all rows of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..ir.errors import BackendError
from .request import Processor


@dataclass(frozen=True, slots=True)
class Processed:
    """A row that has processors: its place among the logits, and its tokens so far (n,)."""

    index: int
    processors: tuple[Processor, ...]
    token_ids: NDArray[np.int64]


def process(rows: Sequence[Processed], logits: Tensor) -> dict[int, BackendError]:
    """Calls each row's processors, one after another, with copies, and takes over what they give.

    `logits` (rows, vocab), float32, are overwritten. Returns the places of the rows that failed: of what a processor
    raised, or gave back that is no logits.
    """
    failed: dict[int, BackendError] = {}
    for stage in range(max((len(row.processors) for row in rows), default=0)):
        calls: dict[int, list[Processed]] = {}
        for row in rows:
            if stage < len(row.processors) and row.index not in failed:
                processor = row.processors[stage]
                calls.setdefault(id(processor) if is_batched(processor) else -1 - row.index, []).append(row)
        for called in calls.values():
            failed |= _take(called[0].processors[stage], called, logits)
    return failed


def is_batched(processor: Processor) -> bool:
    """Whether a processor takes all rows of a step at once."""
    return bool(getattr(processor, "batched", False))


def _take(processor: Processor, rows: list[Processed], logits: Tensor) -> dict[int, BackendError]:
    """Calls a processor for some rows and stores its result; returns the rows that failed."""
    indices = [row.index for row in rows]
    name = getattr(processor, "__qualname__", type(processor).__qualname__)
    try:
        result = _called(processor, name, rows, logits[indices] if is_batched(processor) else logits[indices[0]])
    except BackendError as error:
        return dict.fromkeys(indices, error)
    logits[indices] = result.to(logits).view(len(indices), -1)
    broken = result.view(len(indices), -1).isnan().any(dim=-1).tolist()
    nan = BackendError(f"the processor {name} left NaN in the logits")
    return {index: nan for index, is_broken in zip(indices, broken, strict=True) if is_broken}


def _called(processor: Processor, name: str, rows: list[Processed], logits: Tensor) -> Tensor:
    """What a processor makes of a copy of logits (vocab,), or (rows, vocab) if it is batched."""
    # What the functions keep must be ordinary tensors, and the engine's own arrays out of their reach.
    with torch.inference_mode(False), torch.no_grad():
        given = logits.clone()
        token_ids: Any = [torch.tensor(row.token_ids, device=logits.device) for row in rows]
        try:
            result: Any = processor(token_ids if is_batched(processor) else token_ids[0], given)
        except Exception as error:
            raise BackendError(f"the processor {name} raised {type(error).__name__}: {error}") from error
    result = given if result is None else result
    if not isinstance(result, Tensor) or result.shape != logits.shape:
        what = f"a tensor of shape {tuple(result.shape)}" if isinstance(result, Tensor) else repr(result)[:60]
        raise BackendError(f"the processor {name} returned {what} instead of logits of shape {tuple(logits.shape)}")
    return result
