"""The output of a batch: nothing that was finished is lost, nothing is written twice.

While a batch goes on, `OUT.part` holds one line per finished row, in the order of finishing; `OUT` itself, in the rows'
order, appears whole at the end. `OUT.meta` says what was run (see identity.py), for resuming. Of each row a few bytes
stay in memory, so that there may be millions.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from ..ir.errors import UsageError
from .identity import Identity, difference
from .named_files import file_content
from .plain import to_json

How = Literal["new", "resume", "overwrite"]
_NOT_FINISHED = -1
_AGAIN = "start again with overwrite (--overwrite), which replaces it"


def check_output(out: object, resume: bool, overwrite: bool) -> None:
    """Raises UsageError for options of an output that do not go together."""
    if out is None and (resume or overwrite):
        raise UsageError("resume and overwrite need out, the file that the rows are in")
    if resume and overwrite:
        raise UsageError("resume goes on with an output and overwrite replaces it: give one of them")


def open_journal(out: Path, identity: Identity, how: How, keys: Sequence[str] | None) -> Journal:
    """Begin to write. Raises UsageError if that would touch an earlier output, or go on with one of something else.

    keys: of all rows, where they are known; they are compared with those that are finished.
    """
    journal = Journal(out, identity)
    try:
        journal.open(how)
        if keys is not None:
            for row, key in enumerate(keys):
                journal.has(row, key)
            journal.check_fits(len(keys))
    except BaseException:
        journal.close()
        journal.put_back()
        raise
    return journal


class Journal:
    """The files of one batch. `add` may be called on any thread."""

    def __init__(self, out: Path, identity: Identity) -> None:
        self.out = out
        self.part = out.with_name(out.name + ".part")
        self.meta = out.with_name(out.name + ".meta")
        self.num_finished = 0
        self.num_failed = 0
        self._identity: Identity = json.loads(to_json(identity))
        self._file: IO[bytes] | None = None
        self._is_closed = False
        self._was_complete = False
        self._writing = threading.Lock()
        # By row: where its line begins in OUT.part (or _NOT_FINISHED), and the hash of its arguments.
        self._starts = array("q")
        self._keys = array("Q")
        # What finished rows found in the files that their arguments name; None where they differ.
        self._files: dict[str, str | None] = {}

    def open(self, how: How) -> None:
        """Begin. Raises UsageError if that would touch an earlier output, or go on with one of something else."""
        self._check_place()
        ways: dict[How, Callable[[], None]]
        ways = {"new": self._begin, "resume": self._resume, "overwrite": self._overwrite}
        ways[how]()

    def has(self, row: int, key: str) -> bool:
        """Whether a row is finished. Raises UsageError if that was a row with other arguments."""
        if row >= len(self._starts) or self._starts[row] == _NOT_FINISHED:
            return False
        if self._keys[row] != int(key, 16):
            raise UsageError(
                f"row {row} is finished in {self.out}, but with other arguments than it has now",
                help=f"resume with the same rows, or {_AGAIN}",
            )
        return True

    def check_fits(self, num_rows: int) -> None:
        """Raises UsageError if a row is finished that is none of so many."""
        if len(self._starts) > num_rows:
            raise UsageError(
                f"row {len(self._starts) - 1} is finished in {self.out}, but there are only {num_rows} rows now",
                help=f"resume with the same rows, or {_AGAIN}",
            )

    def changed_files(self) -> list[str]:
        """The files that finished rows name and that hold something else now; not those that changed meanwhile, too."""
        return [name for name, found in self._files.items() if found is not None and found != file_content(name)]

    def record(self, row: int) -> dict[str, Any]:
        """What was written of a finished row."""
        with open(self.part, "rb") as part:
            part.seek(self._starts[row])
            return json.loads(part.readline())  # type: ignore[no-any-return]

    def add(self, row: int, key: str, record: Mapping[str, Any]) -> None:
        """Write a finished row, at once; a journal that is closed takes none. Thread-safe. Raises UsageError."""
        line = to_json({"row": row, "key": key, **record}) + b"\n"
        with self._writing:
            if self._is_closed:
                return
            file = self._append_file()
            start = file.tell()
            try:
                _write_all(file, line)
            except BaseException as error:  # a full disk, or Ctrl-C: half a line must not stay before the next one
                self._cut(start)
                if isinstance(error, OSError):
                    raise UsageError(f"{self.part} cannot be written: {error.strerror or error}") from None
                raise
            self._note(row, key, start, record["error"] is not None)

    def complete(self, num_rows: int) -> bool:
        """Put the rows in order and replace OUT.part by OUT, if all of so many are finished; says whether."""
        self.check_fits(num_rows)
        if self.num_finished < num_rows:
            return False
        with open(self.part, "rb") as part:
            _write_whole(self.out, (_line(part, start) for start in self._starts))
        self.part.unlink()
        return True

    def close(self) -> None:
        """Let go of the files."""
        with self._writing:
            self._is_closed = True
            self._release()

    def put_back(self) -> None:
        """Leave the output of a completed run as it was found."""
        if self._was_complete:
            os.replace(self.part, self.out)

    def _check_place(self) -> None:
        if self.out.is_dir():
            raise UsageError(f"the output is to be a file, and {self.out} is a folder")
        if not self.out.parent.is_dir():
            raise UsageError(f"there is no folder {str(self.out.parent)!r} for the output {self.out.name}")

    def _begin(self) -> None:
        for path in (self.out, self.part):
            if path.exists() and (path == self.out or path.stat().st_size):
                raise UsageError(
                    f"{path} exists already", help=f"resume (--resume) goes on where that run stopped, or {_AGAIN}"
                )
        self._lock()
        self._write_meta()

    def _overwrite(self) -> None:
        self._lock()
        self.out.unlink(missing_ok=True)
        self._cut(0)
        self._write_meta()

    def _resume(self) -> None:
        if not self.out.exists() and not (self.part.exists() and self.part.stat().st_size):
            self._begin()
            return
        self._check_identity()
        self._lock()
        if self.out.exists():
            self._take_back()
        self._read()

    def _write_meta(self) -> None:
        _write_whole(self.meta, to_json(self._identity, indent=1) + b"\n")

    def _append_file(self) -> IO[bytes]:
        if self._file is None:
            try:
                # Unbuffered: what was written survives even if this process is killed with its next instruction.
                self._file = open(self.part, "ab", buffering=0)  # noqa: SIM115 (closed by close)
            except OSError as error:
                raise UsageError(f"{self.part} cannot be written: {error.strerror}") from None
        return self._file

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _lock(self) -> None:
        """Two runs must not write one output. The lock ends with the process, however that ends."""
        file = self._append_file()
        if sys.platform == "win32":
            return
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._release()
            raise UsageError(f"another run is writing {self.part} at this moment") from None

    def _check_identity(self) -> None:
        try:
            earlier = json.loads(self.meta.read_bytes())
            told = difference(earlier, self._identity)
        except (OSError, ValueError, AttributeError, KeyError):
            raise UsageError(
                f"{self.meta} does not say what the earlier run was, so it cannot be resumed", help=_AGAIN
            ) from None
        if told is not None:
            raise UsageError(f"{self.out} is the output of {told}", help=f"resume with the same, or {_AGAIN}")

    def _take_back(self) -> None:
        """Make OUT, which an earlier run completed, OUT.part again (rows may have been taken out of it since)."""
        self._release()
        os.replace(self.out, self.part)
        self._was_complete = True
        self._lock()

    def _read(self) -> None:
        """Find the rows that are finished. A last line without an end was being written when the run was killed."""
        start = 0
        with open(self.part, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                row, key, failed = self._parsed(line, number)
                if row >= len(self._starts) or self._starts[row] == _NOT_FINISHED:
                    self._note(row, key, start, failed)
                start += len(line)
        self._cut(start)

    def _cut(self, length: int) -> None:
        """Drop what OUT.part holds after `length` bytes."""
        file = self._append_file()
        file.truncate(length)
        file.seek(0, os.SEEK_END)

    def _parsed(self, line: bytes, number: int) -> tuple[int, str, bool]:
        """A line's row and key, and whether it failed."""
        try:
            record = json.loads(line)
            row, key = record["row"], record["key"]
            if isinstance(row, int) and row >= 0 and 0 <= int(key, 16) < 2**64:
                self._note_files(record.get("files", {}))
                return row, key, record["error"] is not None
        except (ValueError, TypeError, KeyError, AttributeError):
            pass
        raise UsageError(
            f"{self.part}:{number} is not a row that this run could have written",
            help=f"repair or delete the line, or {_AGAIN}",
        )

    def _note_files(self, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            self._files[name] = content if self._files.get(name, content) == content else None

    def _note(self, row: int, key: str, start: int, failed: bool) -> None:
        missing = row + 1 - len(self._starts)
        if missing > 0:
            self._starts.extend([_NOT_FINISHED] * missing)
            self._keys.extend([0] * missing)
        self._starts[row], self._keys[row] = start, int(key, 16)
        self.num_finished += 1
        self.num_failed += failed


def _write_all(file: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _line(file: IO[bytes], start: int) -> bytes:
    file.seek(start)
    return file.readline()


def _write_whole(path: Path, data: bytes | Iterator[bytes]) -> None:
    """Write a file that appears whole or not at all, also if the machine stops."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
