"""The user's own functions between the model's logits and the choice of a token (`gen(processors=[...])`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..ir.errors import BackendError
from .request import Processor


def process(processors: tuple[Processor, ...], token_ids: NDArray[np.int64], logits: Tensor) -> None:
    """Calls each processor with copies of the token ids (n,) and of the logits (vocab,), and takes over its result.

    `logits`, float32, are overwritten. Raises BackendError, caused by what a processor raised, or for a result that is
    no such row of logits.
    """
    # What the functions keep must be ordinary tensors, and the engine's own arrays out of their reach.
    with torch.inference_mode(False), torch.no_grad():
        row = logits.clone()
        for processor in processors:
            row = _call(processor, torch.tensor(token_ids, device=logits.device), row)
    logits.copy_(row)


def _call(processor: Processor, token_ids: Tensor, logits: Tensor) -> Tensor:
    name = getattr(processor, "__qualname__", type(processor).__qualname__)
    shape = logits.shape
    try:
        result: Any = processor(token_ids, logits)
    except Exception as error:
        raise BackendError(f"the processor {name} raised {type(error).__name__}: {error}") from error
    result = logits if result is None else result
    if not isinstance(result, Tensor) or result.shape != shape:
        what = f"a tensor of shape {tuple(result.shape)}" if isinstance(result, Tensor) else repr(result)[:60]
        raise BackendError(f"the processor {name} returned {what} instead of logits of shape {tuple(shape)}")
    if result.isnan().any():
        raise BackendError(f"the processor {name} left NaN in the logits")
    return result.to(logits)
