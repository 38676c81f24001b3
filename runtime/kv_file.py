"""The file of a saved KV cache: runs of tokens with their keys and values, in the safetensors format.

The file holds blocks, each a run of tokens below another block or at the beginning of a prompt. Parents come before
their children and what was used last comes first, so that as many blocks from the front as one has room for are a tree.
Every byte is under a checksum, and nothing in the file is ever executed. The layout is in docs/runtime.md.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from ..ir.errors import CacheError
from .pool import KVLayout
from .radix import TokenArray

if TYPE_CHECKING:
    from .pool import Extent

VERSION = 1
_DIGEST_BYTES = 16
_NO_DIGEST = "0" * (2 * _DIGEST_BYTES)
_TOKEN_BYTES = np.dtype(np.int64).itemsize
# A header that claims to be longer is damaged: it would be read into memory before anything can be checked.
_MOST_HEADER = 1 << 30
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
_ANEW = "delete it, and it is made anew"


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model KV is of. name: for people. fingerprint: the same for equal configurations and weights only."""

    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A run of tokens to write, below the block number `parent` (None: at the beginning).

    The KV of the tokens are the first of the extent.
    """

    parent: int | None
    tokens: TokenArray
    extent: Extent


class Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run of `length` tokens below the block number `parent`; `checksum` is that of its keys and values."""

    parent: int | None
    length: int
    checksum: str


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says about itself. tokens_checksum: that of the tokens of all blocks."""

    model_name: str
    fingerprint: str
    dtype: str
    num_layers: int
    num_kv_heads: int
    head_dim: int
    tokens_checksum: str
    blocks: list[Block]

    @property
    def num_tokens(self) -> int:
        """Tokens of all blocks."""
        return sum(block.length for block in self.blocks)


class _Metadata(msgspec.Struct, frozen=True):
    ramify_kv_cache: str
    index: str


class _Header(msgspec.Struct, frozen=True):
    metadata: _Metadata = msgspec.field(name="__metadata__")


def write_kv_file(path: Path, identity: ModelIdentity, layout: KVLayout, runs: Sequence[SavedRun]) -> None:
    """Writes runs, parents first, to `path`, which is replaced when all is on the disk. Raises CacheError."""
    if layout.dtype not in _DTYPES:
        raise CacheError(f"keys and values in {layout.dtype} cannot be saved")
    try:
        with _replacing(path.expanduser().resolve()) as file:
            _write(file, identity, layout, runs)
    except OSError as error:
        size = sum(len(run.tokens) for run in runs) * layout.bytes_per_token
        raise CacheError(f"{path} cannot be written ({size:,} bytes): {error.strerror}") from error


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` at the end, unless something fails. Only its owner may read it."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _write(file: IO[bytes], identity: ModelIdentity, layout: KVLayout, runs: Sequence[SavedRun]) -> None:
    """Leaves room for the header, which is as long with the checksums as without, and writes it at the end."""
    blocks = [Block(run.parent, len(run.tokens), _NO_DIGEST) for run in runs]
    index = _index(identity, layout, _NO_DIGEST, blocks)
    file.seek(len(_header_bytes(index)))
    tokens = np.concatenate([np.zeros(0, np.int64), *(run.tokens for run in runs)]).tobytes()
    file.write(tokens)
    digests = [_write_block(file, run) for run in runs]
    blocks = [Block(block.parent, block.length, digest) for block, digest in zip(blocks, digests, strict=True)]
    header = _header_bytes(_index(identity, layout, _digest(tokens).hex(), blocks))
    file.write(_digest(header))
    file.seek(0)
    file.write(header)


def _write_block(file: IO[bytes], run: SavedRun) -> str:
    """Writes a block layer by layer, so that little is copied at a time; returns its checksum."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for layer in run.extent.span(0, len(run.tokens)):
        data = _bytes_of(layer.to("cpu").contiguous())
        digest.update(data)
        file.write(data)
    return digest.hexdigest()


def _index(identity: ModelIdentity, layout: KVLayout, tokens_checksum: str, blocks: list[Block]) -> Index:
    return Index(
        identity.name,
        identity.fingerprint,
        _DTYPES[layout.dtype],
        layout.num_layers,
        layout.num_kv_heads,
        layout.head_dim,
        tokens_checksum,
        blocks,
    )


def _header_bytes(index: Index) -> bytes:
    """The header as safetensors has it: its length in 8 bytes, then JSON that names every tensor's place."""
    sizes = [index.num_tokens * _TOKEN_BYTES, *(_block_bytes(index, block) for block in index.blocks), _DIGEST_BYTES]
    shapes = [[index.num_tokens], *(_block_shape(index, block) for block in index.blocks), [_DIGEST_BYTES]]
    dtypes = ["I64", *[index.dtype] * len(index.blocks), "U8"]
    names = ["tokens", *(f"kv.{number}" for number in range(len(index.blocks))), "checksum"]
    ends = list(accumulate(sizes))
    entries: dict[str, Any] = {
        "__metadata__": {"ramify_kv_cache": str(VERSION), "index": msgspec.json.encode(index).decode()}
    }
    for name, dtype, shape, size, end in zip(names, dtypes, shapes, sizes, ends, strict=True):
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end - size, end]}
    text = msgspec.json.encode(entries)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _block_shape(index: Index, block: Block) -> list[int]:
    return [index.num_layers, 2, index.num_kv_heads, block.length, index.head_dim]


def _block_bytes(index: Index, block: Block) -> int:
    itemsize = next(dtype.itemsize for dtype, name in _DTYPES.items() if name == index.dtype)
    return int(np.prod([*_block_shape(index, block), itemsize], dtype=object))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU, writable."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


class KVFile:
    """An open file whose header and tokens are known to be whole and of the right model.

    Blocks are read in their order.
    """

    def __init__(self, file: IO[bytes], path: Path, index: Index, tokens: TokenArray) -> None:
        self.blocks = index.blocks
        self._tokens = np.split(tokens, list(accumulate(block.length for block in index.blocks))[:-1])
        self._file = file
        self._path = path
        self._num_read = 0

    def prefix(self, number: int) -> TokenArray:
        """The tokens from a prompt's beginning to the end of a block."""
        parts = []
        at: int | None = number
        while at is not None:
            parts.append(self._tokens[at])
            at = self.blocks[at].parent
        return np.concatenate(parts[::-1])

    def read_next(self, layout: KVLayout, into: list[tuple[Extent, int]]) -> None:
        """Reads and checks the next block; its tokens from a number on fill an extent each. Raises CacheError."""
        number, self._num_read = self._num_read, self._num_read + 1
        block = self.blocks[number]
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        slab = torch.empty((2, layout.num_kv_heads, block.length, layout.head_dim), dtype=layout.dtype)
        for layer in range(layout.num_layers):
            memory = _bytes_of(slab)
            if self._file.readinto(memory) != len(memory):  # type: ignore[attr-defined]
                raise CacheError(f"{self._path} was cut off while it was read", help=_ANEW)
            digest.update(memory)
            for extent, skip in into:
                extent.data[layer].copy_(slab.narrow(2, skip, extent.room))
        if digest.hexdigest() != block.checksum:
            raise CacheError(
                f"{self._path} is damaged: block {number} ({block.length} tokens, {len(self.blocks)} blocks) is not "
                "what was written",
                help=_ANEW,
            )


@contextmanager
def open_kv_file(path: Path, identity: ModelIdentity, layout: KVLayout) -> Iterator[KVFile]:
    """A file of this model's KV, checked but for its blocks. Raises CacheError that says what is wrong."""
    try:
        with path.expanduser().open("rb") as file:
            header = _read_header(file, path)
            index = _read_index(header, path)
            _check_size(file, path, len(header), index)
            if _stored_digest(file) != _digest(header) or _header_bytes(index) != header:
                raise CacheError(f"{path} is damaged: its header is not what was written", help=_ANEW)
            _check_model(path, index, identity, layout)
            file.seek(len(header))
            yield KVFile(file, path, index, _read_tokens(file, path, index))
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror}") from error


def _read_header(file: IO[bytes], path: Path) -> bytes:
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    left = os.fstat(file.fileno()).st_size - len(prefix)
    if len(prefix) < 8 or not 0 < length <= _MOST_HEADER:
        raise CacheError(f"{path} is no saved cache, or its beginning is damaged")
    if length > left:
        raise CacheError(f"{path} is no saved cache, or is cut off: its header has {left} of {length} bytes")
    return prefix + file.read(length)


def _read_index(header: bytes, path: Path) -> Index:
    try:
        metadata = msgspec.json.decode(header[8:], type=_Header).metadata
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CacheError(f"{path} is no saved cache, or its header is damaged: {error}") from error
    if metadata.ramify_kv_cache != str(VERSION):
        raise CacheError(
            f"{path} is a saved cache of format {metadata.ramify_kv_cache!r}; this version reads {VERSION}", help=_ANEW
        )
    try:
        return msgspec.json.decode(metadata.index, type=Index)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CacheError(f"{path} is damaged: {error}", help=_ANEW) from error


def _check_size(file: IO[bytes], path: Path, header_len: int, index: Index) -> None:
    """Raises CacheError when the file has not as many bytes as its index says."""
    if index.dtype not in _DTYPES.values():
        raise CacheError(f"{path} is damaged: there is no dtype {index.dtype!r}", help=_ANEW)
    blocks = sum(_block_bytes(index, block) for block in index.blocks)
    wanted = header_len + index.num_tokens * _TOKEN_BYTES + blocks + _DIGEST_BYTES
    size = os.fstat(file.fileno()).st_size
    if size < wanted:
        raise CacheError(f"{path} is cut off: {size:,} of {wanted:,} bytes are there", help=_ANEW)
    if size > wanted:
        raise CacheError(f"{path} is damaged: it has {size - wanted:,} bytes more than it should", help=_ANEW)


def _stored_digest(file: IO[bytes]) -> bytes:
    file.seek(-_DIGEST_BYTES, os.SEEK_END)
    return file.read(_DIGEST_BYTES)


def _check_model(path: Path, index: Index, identity: ModelIdentity, layout: KVLayout) -> None:
    """Raises CacheError for KV that this model cannot go on from."""
    own = _index(identity, layout, index.tokens_checksum, index.blocks) if layout.dtype in _DTYPES else None
    if own is None or index.dtype != own.dtype:
        raise CacheError(
            f"{path} holds keys and values in {index.dtype}, the model runs in {layout.dtype}",
            help="run the model in the dtype of the file, or name another file",
        )
    if index.fingerprint != own.fingerprint:
        same = " with other weights or another configuration" if index.model_name == own.model_name else ""
        raise CacheError(
            f"{path} is the cache of another model: of {index.model_name}{same}, not of {own.model_name}",
            help="name another file for this model",
        )
    if (index.num_layers, index.num_kv_heads, index.head_dim) != (own.num_layers, own.num_kv_heads, own.head_dim):
        raise CacheError(f"{path} has keys and values of another shape than the model's", help=_ANEW)


def _read_tokens(file: IO[bytes], path: Path, index: Index) -> TokenArray:
    data = file.read(index.num_tokens * _TOKEN_BYTES)
    if _digest(data).hex() != index.tokens_checksum:
        raise CacheError(f"{path} is damaged: its tokens are not what was written", help=_ANEW)
    for number, block in enumerate(index.blocks):
        if block.length < 1 or (block.parent is not None and not 0 <= block.parent < number):
            raise CacheError(f"{path} is damaged: block {number} has no place", help=_ANEW)
    return np.frombuffer(data, dtype=np.int64)
