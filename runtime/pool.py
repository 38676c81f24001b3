"""Where keys and values live: extents, slabs of KV that are contiguous per layer and head.

On a CPU gathering pages costs more than the attention over them, so every node of the radix tree keeps its KV in one
extent. Extents are views into storages: a split makes two views of one storage without copying, and a storage's memory
goes back when its last view does. The pool only counts; who may use an extent is the radix tree's business. Nothing
here is thread-safe: the engine's thread owns the pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

_TOKEN_DIM = 3


@dataclass(frozen=True, slots=True)
class KVLayout:
    """The shape of one token's keys and values, and where they are kept."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        """Bytes that the keys and values of one token take over all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * self.dtype.itemsize

    def empty(self, room: int) -> Tensor:
        """Uninitialised memory for `room` tokens: (num_layers, 2, num_kv_heads, room, head_dim)."""
        shape = (self.num_layers, 2, self.num_kv_heads, room, self.head_dim)
        return torch.empty(shape, dtype=self.dtype, device=self.device)


class PoolExhausted(Exception):
    """The pool has fewer free tokens than were asked for."""


class DeviceFull(PoolExhausted):
    """The pool has them, but the device has no memory for them: others use it, or it lies in too small pieces."""


@dataclass(eq=False, slots=True)
class _Storage:
    """Memory for `room` tokens and the live extents that look into it."""

    memory: Tensor
    room: int
    extents: set[Extent] = field(default_factory=set)
    place: tuple[int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        """Asks for the `place` of its first token once: an extent's is wanted in every step."""
        token_bytes = self.memory.shape[-1] * self.memory.element_size()
        self.place = self.memory.data_ptr(), self.memory.stride(2), token_bytes

    @property
    def wasted(self) -> int:
        """Tokens that no extent covers."""
        return self.room - sum(extent.room for extent in self.extents)


@dataclass(eq=False, slots=True)
class Extent:
    """`room` tokens of KV: the tokens [start, start + room) of a storage that other extents may share.

    An extent that was split, trimmed or released is dead, and asking it for its memory is a bug.
    """

    room: int
    _start: int
    _storage: _Storage | None

    @property
    def data(self) -> Tensor:
        """Keys (index 0) and values (1) of all layers: (num_layers, 2, num_kv_heads, room, head_dim), writable."""
        return self.span(0, self.room)

    def span(self, start: int, length: int) -> Tensor:
        """`data` of the tokens [start, start + length) alone: (num_layers, 2, num_kv_heads, length, head_dim)."""
        assert self._storage is not None, "this extent was released, split or trimmed"
        assert start >= 0 and start + length <= self.room, f"{length} tokens at {start} of {self.room}"
        return self._storage.memory.narrow(_TOKEN_DIM, self._start + start, length)

    @property
    def place(self) -> tuple[int, int, int]:
        """For kernels: the address of the first key of layer 0 and head 0, how many numbers heads are apart, and how
        many bytes tokens.
        """
        assert self._storage is not None, "this extent was released, split or trimmed"
        address, head_stride, token_bytes = self._storage.place
        return address + self._start * token_bytes, head_stride, token_bytes

    def keys(self, layer: int) -> Tensor:
        """The keys of one layer: a writable view (num_kv_heads, room, head_dim)."""
        return self.data[layer, 0]

    def values(self, layer: int) -> Tensor:
        """The values of one layer: a writable view (num_kv_heads, room, head_dim)."""
        return self.data[layer, 1]


class KVPool:
    """Hands out extents of at most `capacity` tokens in all; memory is taken when an extent is allocated.

    before_move: called before KV is copied to another place, so that whoever still fills it can end first. changes: how
    often an extent has died or moved; while it stays, what was known of extents' places holds.
    """

    def __init__(self, layout: KVLayout, capacity: int, before_move: Callable[[], object] = lambda: None) -> None:
        self.layout = layout
        self.capacity = capacity
        self.changes = 0
        self._before_move = before_move
        self._used = 0
        self._covered = 0
        self._storages: dict[_Storage, None] = {}  # in the order in which they were made

    @property
    def used(self) -> int:
        """Tokens whose memory is held, including those of a shared storage that no extent covers any more."""
        return self._used

    @property
    def wasted(self) -> int:
        """Tokens of shared storages that no extent covers any more."""
        return self._used - self._covered

    @property
    def free(self) -> int:
        """Tokens that can still be allocated."""
        return self.capacity - self._used

    def can_allocate(self, room: int) -> bool:
        """Whether `allocate(room)` would succeed."""
        return room <= self.free

    def allocate(self, room: int) -> Extent:
        """A new extent with memory of its own. Raises PoolExhausted, and leaves everything as it was then."""
        assert room > 0, f"an extent needs room for at least one token, got {room}"
        if not self.can_allocate(room):
            raise PoolExhausted(f"{room} tokens of KV were asked for and {self.free} of {self.capacity} are free")
        try:
            memory = self.layout.empty(room)
        except torch.OutOfMemoryError as error:
            raise DeviceFull(f"the device has no memory for KV of {room} tokens") from error
        storage = _Storage(memory, room)
        self._storages[storage] = None
        self._used += room
        self._covered += room
        return _view(storage, 0, room)

    def split(self, extent: Extent, at: int) -> tuple[Extent, Extent]:
        """Two extents over the tokens [0, at) and [at, room) of `extent`, which is dead after; nothing is copied."""
        assert 0 < at < extent.room, f"cannot split {extent.room} tokens at {at}"
        self.changes += 1
        storage = _detach(extent)
        head = _view(storage, extent._start, at)
        return head, _view(storage, extent._start + at, extent.room - at)

    def trim(self, extent: Extent, length: int) -> Extent:
        """An extent with the first `length` tokens of `extent`, which is dead after unless it is returned itself.

        Copies into a right-sized storage when that frees memory, which is when no other extent shares the storage;
        so `trim(extent, extent.room)` also gives back what split-off neighbours left behind when they were released.
        Until the copy is done both storages exist, so real memory may exceed `capacity` by `length` tokens. Where the
        device has no memory for it, nothing is copied.
        """
        assert 0 < length <= extent.room, f"cannot trim {extent.room} tokens to {length}"
        storage = extent._storage
        assert storage is not None, "this extent was released, split or trimmed"
        if len(storage.extents) > 1 or length == storage.room:
            return self._shortened(extent, length)
        try:
            memory = self._copied([extent.span(0, length)], length)
        except torch.OutOfMemoryError:
            return self._shortened(extent, length)
        self.release(extent)
        trimmed = _Storage(memory, length)
        self._storages[trimmed] = None
        self._used += length
        self._covered += length
        return _view(trimmed, 0, length)

    def _shortened(self, extent: Extent, length: int) -> Extent:
        """The same in the storage where it is."""
        if length == extent.room:
            return extent
        self.changes += 1
        self._covered -= extent.room - length
        return _view(_detach(extent), extent._start, length)

    def release(self, extent: Extent) -> int:
        """Gives the extent back and returns how many tokens became free: none while others share its storage."""
        self.changes += 1
        storage = _detach(extent)
        self._covered -= extent.room
        if storage.extents:
            return 0
        del self._storages[storage]
        self._used -= storage.room
        return storage.room

    def compact(self, num_tokens: int) -> int:
        """Copies extents out of storages that hold more than these, the most wasteful first, until `num_tokens` are
        gained, nothing is wasted, or the device has no memory to copy to; returns how many were. The extents stay what
        they are, at other places.

        Until a copy is done both storages exist, so real memory may exceed `capacity` by the tokens that are copied.
        """
        gained = 0
        for storage in sorted(self._storages, key=lambda storage: storage.wasted, reverse=True):
            if gained >= num_tokens or not storage.wasted:
                break
            wasted = storage.wasted
            try:
                moved = self._moved(storage)
            except torch.OutOfMemoryError:
                break
            del self._storages[storage]
            self._storages[moved] = None
            self._used -= wasted
            gained += wasted
        return gained

    def _moved(self, storage: _Storage) -> _Storage:
        """A storage of the right size, with all extents of another one."""
        self.changes += 1
        extents = sorted(storage.extents, key=lambda extent: extent._start)
        room = sum(extent.room for extent in extents)
        moved = _Storage(self._copied([extent.data for extent in extents], room), room, storage.extents)
        start = 0
        for extent in extents:
            extent._storage, extent._start = moved, start
            start += extent.room
        return moved

    def _copied(self, parts: list[Tensor], room: int) -> Tensor:
        """New memory for `room` tokens that holds the parts, one after another."""
        self._before_move()
        memory, start = self.layout.empty(room), 0
        for part in parts:
            length = part.shape[_TOKEN_DIM]
            memory.narrow(_TOKEN_DIM, start, length).copy_(part)
            start += length
        return memory

    def check(self) -> None:
        """Raises AssertionError when the accounting does not match the memory that is held."""
        held = sum(storage.room for storage in self._storages)
        assert held == self._used, f"{self._used} tokens are counted as used and storages hold {held}"
        covered = sum(extent.room for storage in self._storages for extent in storage.extents)
        assert covered == self._covered, f"{self._covered} tokens are counted as covered and extents cover {covered}"
        assert 0 <= self._used <= self.capacity, f"{self._used} tokens are used of {self.capacity}"
        for storage in self._storages:
            _check_storage(storage, self.layout)


def _view(storage: _Storage, start: int, room: int) -> Extent:
    extent = Extent(room, start, storage)
    storage.extents.add(extent)
    return extent


def _detach(extent: Extent) -> _Storage:
    """Makes the extent dead and returns the storage it looked into."""
    storage = extent._storage
    assert storage is not None, "this extent was already released, split or trimmed"
    extent._storage = None
    storage.extents.remove(extent)
    return storage


def _check_storage(storage: _Storage, layout: KVLayout) -> None:
    size = storage.memory.untyped_storage().nbytes()
    assert size == storage.room * layout.bytes_per_token, f"{size} bytes are held for {storage.room} tokens"
    assert storage.extents, "a storage is held that no extent looks into"
    end = 0
    for extent in sorted(storage.extents, key=lambda extent: extent._start):
        assert extent._storage is storage, "an extent looks into another storage than the one that lists it"
        assert extent._start >= end, "two extents of one storage overlap"
        end = extent._start + extent.room
    assert end <= storage.room, "an extent reaches beyond its storage"
