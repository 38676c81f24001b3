"""Copies of KV between a device and the machine's memory, which on a GPU go on beside what is computed.

A CopyQueue carries copies out in their order, some time after they were begun; a Copier begins them and keeps the
memory that they read and write until they have ended, whatever becomes of its owners meanwhile. On CUDA the queue is a
stream of its own: it waits for what was launched before, since that may still write what is copied, and what is
launched later waits for a copy only where it is told to (`Transfer.join`).
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# What transfers may keep from being reused: more than this is waited for.
MOST_BYTES_IN_FLIGHT = 1 << 30
# Copies that were put off are begun when they have so many bytes.
_MOST_BYTES_PUT_OFF = 64 << 20
# Transfers of at least so many bytes tell what copying takes; until one has, it is thought to take this long a byte.
_TIMED_BYTES = 1 << 20
_SECONDS_PER_BYTE = 1e-10
# How much of the newest measurement is in the mean.
_NEWEST = 0.2
# A GPU's side of a copy is put in the order of the machine's side first, so many bytes at a time.
_STAGED_BYTES = 64 << 20
# The dimensions of KV with the tokens first, as they lie in the machine's memory, and back.
TOKENS_FIRST = (3, 0, 1, 2, 4)
TOKENS_FOURTH = (1, 2, 3, 0, 4)


class Copy(NamedTuple):
    """KV of the same shape: (num_layers, 2, num_kv_heads, length, head_dim)."""

    destination: Tensor
    source: Tensor


class Transfer(Protocol):
    """Copies that were begun together."""

    def is_done(self) -> bool:
        """Whether all has been copied."""

    def wait(self) -> None:
        """Blocks the thread until all has been copied."""

    def join(self) -> None:
        """Has what is computed from now on come after the copies; blocks only where nothing else would do."""

    def seconds(self) -> float:
        """How long it took. To be asked when it is done."""


class CopyQueue(Protocol):
    """Carries copies out in the order in which they were begun."""

    def begin(self, copies: list[Copy]) -> Transfer:
        """Begins them after all that was computed before. It keeps no hold of their memory."""


class Copier:
    """Begins transfers and holds their memory until they have ended. Not thread-safe.

    seconds_per_byte: what large transfers took, as a moving mean.
    """

    def __init__(self, queue: CopyQueue, *, most_bytes: int = MOST_BYTES_IN_FLIGHT) -> None:
        self.seconds_per_byte = _SECONDS_PER_BYTE
        self._queue = queue
        self._most_bytes = most_bytes
        self._put_off: list[Copy] = []
        self._in_flight: deque[_InFlight] = deque()

    @property
    def bytes_in_flight(self) -> int:
        """Bytes of the transfers that are not known to have ended."""
        return sum(flight.num_bytes for flight in self._in_flight)

    def put_off(self, copies: list[Copy]) -> None:
        """Has copies begun with later ones, or by `flush`, since each transfer has its cost."""
        self._put_off += copies
        if _num_bytes(self._put_off) >= _MOST_BYTES_PUT_OFF:
            self.flush()

    def flush(self) -> None:
        """Begins what was put off."""
        if self._put_off:
            self.begin([])

    def begin(self, copies: list[Copy]) -> Transfer:
        """Begins copies, after those that were put off. Blocks until earlier transfers have ended where too much memory
        would be held for all of them.
        """
        copies, self._put_off = self._put_off + copies, []
        num_bytes = _num_bytes(copies)
        self._release_ended()
        while self._in_flight and self.bytes_in_flight + num_bytes > self._most_bytes:
            self._in_flight[0].transfer.wait()
            self._release_ended()
        transfer = self._queue.begin(copies)
        self._in_flight.append(_InFlight(transfer, copies, num_bytes))
        self._release_ended()
        return transfer

    def wait_all(self) -> None:
        """Blocks until nothing is left to be copied."""
        self.flush()
        if self._in_flight:
            self._in_flight[-1].transfer.wait()
        self._release_ended()

    def _release_ended(self) -> None:
        while self._in_flight and self._in_flight[0].transfer.is_done():
            flight = self._in_flight.popleft()
            if flight.num_bytes >= _TIMED_BYTES:
                measured = flight.transfer.seconds() / flight.num_bytes
                self.seconds_per_byte += _NEWEST * (measured - self.seconds_per_byte)


def _num_bytes(copies: list[Copy]) -> int:
    return sum(copy.source.nbytes for copy in copies)


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A transfer and what holds its memory."""

    transfer: Transfer
    copies: list[Copy]
    num_bytes: int


def copy_queue(device: torch.device) -> CopyQueue:
    """What copies between a device and the machine's memory."""
    return CudaCopies(device) if device.type == "cuda" else DirectCopies()


class DirectCopies:
    """Copies at once: for KV that lies in the machine's memory anyway."""

    def begin(self, copies: list[Copy]) -> Transfer:
        """See CopyQueue."""
        begun = time.perf_counter()
        for destination, source in copies:
            destination.copy_(source)
        return _Ended(time.perf_counter() - begun)


class _Ended:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def is_done(self) -> bool:
        return True

    def wait(self) -> None:
        pass

    def join(self) -> None:
        pass

    def seconds(self) -> float:
        return self._seconds


class CudaCopies:
    """Copies on a stream of its own, both ways, to and from pinned memory.

    One stream for both ways: what comes in mostly takes the place of what goes out just before, so that it could not
    come any sooner.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def begin(self, copies: list[Copy]) -> Transfer:
        """See CopyQueue."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        begun, ended = _event(), _event()
        with torch.cuda.stream(self._stream):
            begun.record(self._stream)
            for copy in copies:
                _copy_staged(copy)
            ended.record(self._stream)
        return _OnStream(self._device, begun, ended)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


class _OnStream:
    def __init__(self, device: torch.device, begun: torch.cuda.Event, ended: torch.cuda.Event) -> None:
        self._device = device
        self._begun = begun
        self._ended = ended

    def is_done(self) -> bool:
        return bool(self._ended.query())  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        self._ended.synchronize()

    def join(self) -> None:
        torch.cuda.current_stream(self._device).wait_event(self._ended)

    def seconds(self) -> float:
        return float(self._begun.elapsed_time(self._ended)) / 1000


def _copy_staged(copy: Copy) -> None:
    """Copies piece by piece by way of memory of the device in which the tokens lie as they do on the other side.

    So what crosses is one contiguous piece, which the hardware copies by itself.
    """
    length = copy.source.shape[3]
    step = max(1, _STAGED_BYTES * length // max(1, copy.source.nbytes))
    for start in range(0, length, step):
        count = min(step, length - start)
        destination, source = copy.destination.narrow(3, start, count), copy.source.narrow(3, start, count)
        if destination.device.type == "cpu":
            staged = source.permute(TOKENS_FIRST).contiguous()
            destination.permute(TOKENS_FIRST).copy_(staged, non_blocking=True)
        else:
            staged = source.permute(TOKENS_FIRST).to(destination.device, non_blocking=True)
            destination.copy_(staged.permute(TOKENS_FOURTH))
