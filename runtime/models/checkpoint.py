"""The tensors of a model directory's safetensors files: what the headers say of them, and reading them.

Files are mapped while they are read and no longer, since what is mapped counts as the process's memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...ir.errors import ModelError
from .config import read_json_object

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_OTHER_FORMATS = (".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
_FETCH = "the download may be cut off; fetch it again"
_MOST_LISTED = 8
Change: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file, its dtype as safetensors names it."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


Checkpoint: TypeAlias = dict[str, StoredTensor]


def read_checkpoint(model_dir: Path) -> Checkpoint:
    """All tensors of a model directory, by name. Raises ModelError that names the file at fault."""
    if (model_dir / _INDEX).exists():
        return _read_shards(model_dir)
    if not (model_dir / _SINGLE).exists():
        raise _no_weights(model_dir)
    return read_tensors(model_dir / _SINGLE)


def _no_weights(model_dir: Path) -> ModelError:
    shards = sorted(path.name for path in model_dir.glob("*.safetensors"))
    others = sorted(path.name for end in _OTHER_FORMATS for path in model_dir.glob(f"*{end}"))
    said = f", only {listed(shards or others)}" if shards or others else ""
    return ModelError(
        f"{model_dir} holds neither {_SINGLE} nor {_INDEX}{said}",
        help=f"fetch {_INDEX} too, which says what is in which file"
        if shards
        else "only safetensors are read; convert other formats with transformers' save_pretrained",
    )


def _read_shards(model_dir: Path) -> Checkpoint:
    """The files that the index names. Raises ModelError for missing files and for tensors that a file lacks."""
    index = model_dir / _INDEX
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ModelError(f"{index}: weight_map must map tensor names to file names")
    names = sorted(set(places.values()))
    absent = [name for name in names if not (model_dir / name).exists()]
    if absent:
        raise ModelError(f"{index} names files that are not there: {listed(absent)}")
    held = {name: read_tensors(model_dir / name) for name in names}
    lacking = [f"{tensor} (in {name})" for tensor, name in places.items() if tensor not in held[name]]
    if lacking:
        raise ModelError(f"{index} names tensors that their files do not hold: {listed(lacking)}")
    return {tensor: held[name][tensor] for tensor, name in places.items()}


def read_tensors(path: Path) -> Checkpoint:
    """The tensors of one file. Raises ModelError."""
    with _open_file(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        return {
            name: StoredTensor(path, str(part.get_dtype()), tuple(part.get_shape())) for name, part in slices.items()
        }


def _open_file(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        said, advice = _diagnosis(path)
        raise ModelError(f"{path} is not a readable safetensors file: {said or error}", help=advice) from error


def _diagnosis(path: Path) -> tuple[str, str]:
    """What is wrong with a file, as far as its first bytes and its size tell, and what to do."""
    if path.is_dir():
        return "it is a folder", "put the file of this name in its place"
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if (prefix + file.read(16)).startswith(b"version https://git-lfs"):
            return "it is a Git LFS pointer, which stands for the file", "fetch the file itself: git lfs pull"
        file.seek(8)
        header_len = int.from_bytes(prefix, "little")
        header = file.read(header_len) if header_len < size else b""
    if size == 0:
        return "it is empty", _FETCH
    if prefix[7:] != b"\0":
        return f"it begins with {prefix!r}", "put a safetensors file in its place"
    if (whole := _whole_size(header)) is not None and whole > size:
        return f"it is cut off, {size:,} of {whole:,} bytes are there", _FETCH
    return "", _FETCH


def _whole_size(header: bytes) -> int | None:
    """How long the file with this header is, or None where it cannot be told."""
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        return 8 + len(header) + int(max(ends, default=0))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def listed(entries: list[str]) -> str:
    """The first entries, and how many more there are."""
    more = len(entries) - _MOST_LISTED
    return ", ".join(entries[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


class TensorReader:
    """Reads tensors in the dtype and on the device that the model will have."""

    def __init__(self, checkpoint: Checkpoint, target: torch.dtype, device: torch.device) -> None:
        self._checkpoint = checkpoint
        self._target = target
        self._device = device
        self._files: dict[Path, Any] = {}
        self._mapped = ExitStack()
        self._digests: dict[str, str] = {}

    def __enter__(self) -> TensorReader:
        """Nothing is opened yet."""
        return self

    def __exit__(self, *exception: object) -> None:
        """See close."""
        self.close()

    def close(self) -> None:
        """Unmaps the files; those that are needed again are opened again."""
        self._files.clear()
        self._mapped.close()

    def tensor(self, name: str) -> Tensor:
        """A copy of a tensor: the file may change while the model lives."""
        return self.concatenated([name])

    def concatenated(self, names: Sequence[str], changes: Sequence[Change | None] = ()) -> Tensor:
        """Tensors beside one another, each changed by its own function, in which the shape stays."""
        rows, (_, *rest) = self.rows(names), self._checkpoint[names[0]].shape
        result = torch.empty((sum(rows), *rest), dtype=self._target, device=self._device)
        for at, (part, name) in enumerate(zip(result.split_with_sizes(rows), names, strict=True)):
            change = changes[at] if changes else None
            stored = self._stored(name)
            part.copy_(stored if change is None else change(stored))
        return result

    def rows(self, names: Sequence[str]) -> list[int]:
        """How many rows each of the tensors has."""
        return [self._checkpoint[name].shape[0] for name in names]

    def file(self, name: str) -> Path:
        """Where a tensor lies."""
        return self._checkpoint[name].file

    def _stored(self, name: str) -> Tensor:
        """A view of the file."""
        path = self.file(name)
        if path not in self._files:
            self._files[path] = self._mapped.enter_context(_open_file(path))
        stored: Tensor = self._files[path].get_tensor(name)
        self._digests[name] = digest(stored)
        return stored

    def fingerprint(self) -> str:
        """Tells all that was read from tensors with other names, dtypes, shapes or (nearly certainly) numbers."""
        return " ".join(f"{name} {found}" for name, found in sorted(self._digests.items()))


def digest(stored: Tensor) -> str:
    """Tells a tensor from others; of a matrix by about one number in each row, since training changes nearly all."""
    sample = stored.flatten()[:: stored.shape[-1] + 1 if stored.dim() > 1 else 1]
    sample = sample.clone(memory_format=torch.contiguous_format)  # a single number may have any stride
    found = hashlib.blake2b(f"{stored.dtype} {tuple(stored.shape)} ".encode(), digest_size=16)
    found.update(sample.view(torch.uint8).numpy().data)
    return found.hexdigest()
