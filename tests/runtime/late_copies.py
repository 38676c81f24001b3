"""Copies that end later, as on a GPU: until then their destinations hold nonsense."""

from __future__ import annotations

import weakref
from collections import deque

import torch
from ramify.runtime.copies import Copy
from torch import Tensor

NONSENSE = -12345.0


class LateTransfer:
    """A transfer that is carried out when the queue is told to, or when somebody waits for it."""

    def __init__(self, queue: LateCopies, copies: list[Copy]) -> None:
        self._queue = queue
        # No hold of the memory: like a GPU, it copies whatever is at the place by then.
        self._copies = [(weakref.ref(copy.destination), weakref.ref(copy.source)) for copy in copies]
        self._is_done = False

    @torch.inference_mode()  # as the engine's tensors are made
    def carry_out(self) -> None:
        for destination, source in self._copies:
            _alive(destination).copy_(_alive(source))
        self._is_done = True

    def is_done(self) -> bool:
        return self._is_done

    def wait(self) -> None:
        self._queue.carry_out_until(self)

    def join(self) -> None:
        self.wait()

    def seconds(self) -> float:
        assert self._is_done
        return 1.0


class LateCopies:
    """A CopyQueue by hand. num_begun: transfers so far."""

    def __init__(self) -> None:
        self.num_begun = 0
        self.pending: deque[LateTransfer] = deque()

    def begin(self, copies: list[Copy]) -> LateTransfer:
        for destination, source in copies:
            assert destination.shape == source.shape
            destination.fill_(NONSENSE)
        self.num_begun += 1
        self.pending.append(LateTransfer(self, copies))
        return self.pending[-1]

    def carry_out(self, count: int = 1) -> None:
        """The next so many transfers end."""
        for _ in range(min(count, len(self.pending))):
            self.pending.popleft().carry_out()

    def carry_out_until(self, transfer: LateTransfer) -> None:
        """All transfers up to this one end."""
        while not transfer.is_done():
            self.carry_out()


def _alive(reference: weakref.ref[Tensor]) -> Tensor:
    tensor = reference()
    assert tensor is not None, "memory was given back before the copy had ended"
    return tensor
