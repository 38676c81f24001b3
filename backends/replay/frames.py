"""The file of a recording as a row of checked frames, which only grows.

After a line that says what the file is comes one frame after another: the length of the payload, a checksum of length
and place, a checksum of the payload (u32 each, little-endian), and the payload. A frame is written by one call, so a
writer that is killed leaves a beginning of the file: whole frames, and at most one that is cut off, which is dropped.
Anything else that does not fit is damage, and an error that says where.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ...ir.errors import RecordingError

MAGIC = b"ramify recording 1\n"
_KIND = MAGIC[:-2]
_HEAD = struct.Struct("<III")
_MOST_BYTES = 2**32 - 1
_AGAIN = "record again, into another file"


def is_recording(path: Path) -> bool:
    """Whether a file begins as a recording does, of whatever version."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_KIND)) == _KIND
    except OSError:
        return False


class FrameWriter:
    """A new file that frames are added to, on any thread."""

    def __init__(self, path: Path) -> None:
        """Raises RecordingError where the file is there already, or cannot be written."""
        self.path = path
        self._writing = threading.Lock()
        self._place = 0
        try:
            # Unbuffered: what was written survives even if this process is killed with its next instruction.
            self._file: IO[bytes] | None = open(path, "xb", buffering=0)  # noqa: SIM115 (closed by close)
        except FileExistsError:
            raise RecordingError(
                f"{path} exists already, and a recording is never written over",
                help="delete it, name another file, or replay it",
            ) from None
        except OSError as error:
            raise RecordingError(f"{path} cannot be written: {error.strerror}") from None
        self._append(MAGIC)

    def add(self, payload: bytes) -> None:
        """Add a frame; one that is closed takes none. Raises RecordingError."""
        if len(payload) > _MOST_BYTES:
            raise RecordingError(f"{self.path}: one record of {len(payload):,} bytes is too large")
        with self._writing:
            if self._file is not None:
                length = len(payload)
                head = _HEAD.pack(length, _check_of_head(length, self._place), zlib.crc32(payload))
                self._append(head + payload)

    def close(self) -> None:
        """Let go of the file, which is on the disk then. Repeatable."""
        with self._writing:
            file, self._file = self._file, None
            if file is not None:
                with contextlib.suppress(OSError):
                    os.fsync(file.fileno())
                file.close()

    def _append(self, data: bytes) -> None:
        assert self._file is not None
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            # What was written of it is a frame that is cut off: nothing may follow.
            self._file.close()
            self._file = None
            raise RecordingError(f"{self.path} cannot be written: {error.strerror or error}") from None
        self._place += len(data)


def read_frames(path: Path) -> Iterator[bytes]:
    """The payloads of the whole frames. Raises RecordingError, which names the place, for a file that is damaged."""
    try:
        with open(path, "rb") as file:
            yield from _frames(path, file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise RecordingError(f"the recording {path} cannot be read: {error.strerror or error}") from None


def _frames(path: Path, file: IO[bytes], size: int) -> Iterator[bytes]:
    begin = file.read(len(MAGIC))
    if begin != MAGIC and not (len(begin) == size and MAGIC.startswith(begin)):
        if begin.startswith(_KIND):
            raise RecordingError(f"{path} is a recording of another version of ramify", help=_AGAIN)
        raise RecordingError(f"{path} is no recording: it does not begin as one does")
    place = len(MAGIC)
    while place < size:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return
        length, check, payload_check = _HEAD.unpack(head)
        if check != _check_of_head(length, place):
            if not any(head) and not any(file.read()):  # a disk that lost the last blocks gives zeros
                return
            raise _damaged(path, place)
        payload = file.read(length)
        if len(payload) < length:
            return
        if zlib.crc32(payload) != payload_check:
            raise _damaged(path, place)
        yield payload
        place += _HEAD.size + length


def _check_of_head(length: int, place: int) -> int:
    """The checksum of a frame's length: it holds for this place in the file only."""
    return zlib.crc32(struct.pack("<IQ", length, place))


def _damaged(path: Path, place: int) -> RecordingError:
    return RecordingError(f"{path} is damaged: what stands at byte {place:,} is not what was written", help=_AGAIN)
