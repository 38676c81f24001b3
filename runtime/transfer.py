"""Numbers on their way between the host and a device, without waiting for what the device is doing.

A plain copy from or to a GPU waits until all that was launched before it is done. From and to pinned memory it is
launched like anything else, in its order. On a CPU there is nothing to copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(values: Sequence[float] | NDArray[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor (len(values),) with the host's values. On a CPU it may share the memory of an array."""
    host = torch.as_tensor(values, dtype=dtype)
    if device.type == "cpu":
        return host
    return (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)


def moved(values: Tensor, device: torch.device) -> Tensor:
    """The same numbers on a device."""
    return upload(values.numpy(), values.dtype, device) if values.device.type == "cpu" else values.to(device)


class Download:
    """A tensor's values on their way to the host."""

    def __init__(self, values: Tensor) -> None:
        self._ready: torch.cuda.Event | None = None
        if values.device.type != "cuda":
            self._host = values.to("cpu")
        else:
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._ready.record(torch.cuda.current_stream(values.device))

    @property
    def known(self) -> Tensor | None:
        """The values, if the host has had them from the beginning."""
        return self._host if self._ready is None else None

    def result(self) -> Tensor:
        """The values on the host, once they are there."""
        if self._ready is not None:
            self._ready.synchronize()
        return self._host
