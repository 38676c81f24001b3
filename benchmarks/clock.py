"""How long work on a device takes: CUDA events where there is a GPU, else the processor's clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from .report import median


class Clock:
    """Times work on one device. seconds: about how long a measurement goes on; it has at least three runs."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device = device
        self.seconds = seconds
        self._is_cuda = device.type == "cuda"

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self._is_cuda:
            torch.cuda.synchronize(self.device)

    def once(self, action: Callable[[], object]) -> float:
        """Seconds from a device that stands still until what the action gave it is done."""
        self.wait()
        with self.span() as seconds:
            action()
        return seconds()

    @contextmanager
    def span(self) -> Iterator[Callable[[], float]]:
        """Gives a function that says, after the block, how many seconds the device was between its ends."""
        if not self._is_cuda:
            begun, ended = time.perf_counter(), 0.0
            yield lambda: ended - begun
            ended = time.perf_counter()
            return
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

        def elapsed() -> float:
            last.synchronize()
            return first.elapsed_time(last) / 1e3

        first.record()
        yield elapsed
        last.record()

    def median(self, action: Callable[[], object], warm_ups: int = 3) -> float:
        """The median seconds of an action, each run on a device that stands still before it."""
        for _ in range(warm_ups):
            action()
        runs = [self.once(action) for _ in range(3)]
        many = int(self.seconds / max(median(runs), 1e-6))
        return median(runs + [self.once(action) for _ in range(min(many, 200))])

    def mean(self, action: Callable[[], object], count: int) -> float:
        """Mean seconds of an action that is done `count` times without waiting in between."""

        def all_runs() -> None:
            for _ in range(count):
                action()

        return self.once(all_runs) / count
