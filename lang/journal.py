"""The output of a data run: nothing that was finished is lost, nothing is written twice.

While a run goes on, `OUT.part` holds one line per finished row, in the order of finishing; `OUT` itself, in the rows'
order, appears whole at the end. `OUT.meta` says what was run (see rows.fingerprint), for `--resume`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ..ir.errors import UsageError
from .plain import to_json


class Journal:
    """The files of one data run; use it as a context manager. `finished` maps finished rows to whether they failed."""

    def __init__(self, out: Path, num_rows: int, fingerprint: Mapping[str, Any]) -> None:
        self.out = out
        self.part = out.with_name(out.name + ".part")
        self.meta = out.with_name(out.name + ".meta")
        self.finished: dict[int, bool] = {}
        self._num_rows = num_rows
        self._fingerprint = json.loads(to_json(fingerprint))
        self._file: IO[bytes] | None = None
        self._places: dict[int, tuple[int, int]] = {}

    def begin(self) -> None:
        """Start a new run. Raises UsageError if there is an output already."""
        for path in (self.out, self.part):
            if path.exists() and (path == self.out or path.stat().st_size):
                raise UsageError(
                    f"{path} exists already",
                    help="--resume goes on where that run stopped, --overwrite starts again and replaces it",
                )
        self._lock()
        _write_whole(self.meta, to_json(self._fingerprint, indent=1) + b"\n")

    def overwrite(self) -> None:
        """Start a new run in place of an earlier one."""
        self._lock()
        self.out.unlink(missing_ok=True)
        self._cut(0)
        _write_whole(self.meta, to_json(self._fingerprint, indent=1) + b"\n")

    def resume(self) -> None:
        """Go on with an earlier run, or start a new one where there is none.

        Raises UsageError if the earlier one was of another program, of other rows or with other options.
        """
        if not self.out.exists() and not (self.part.exists() and self.part.stat().st_size):
            self.begin()
            return
        self._check_fingerprint()
        self._lock()
        if self.out.exists():
            self._take_back()
        self._read()

    def add(self, row: int, record: Mapping[str, Any]) -> None:
        """Write a finished row, at once. Raises OSError."""
        line = to_json({"row": row, **record}) + b"\n"
        file = self._append_file()
        start = file.tell()
        try:
            _write_all(file, line)
        except BaseException:  # a full disk, or Ctrl-C: half a line must not stay in front of the next one
            self._cut(start)
            raise
        self._note(row, record, start, len(line))

    def complete(self) -> bool:
        """Put the rows in order and replace OUT.part by OUT, if every row is finished; says whether."""
        if len(self.finished) < self._num_rows:
            return False
        with open(self.part, "rb") as part:
            _write_whole(self.out, (_piece(part, *self._places[row]) for row in range(self._num_rows)))
        self.part.unlink()
        return True

    @property
    def num_failed(self) -> int:
        """How many of the finished rows have failed."""
        return sum(self.finished.values())

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append_file(self) -> IO[bytes]:
        if self._file is None:
            try:
                # Unbuffered: what was written survives even if this process is killed with its next instruction.
                self._file = open(self.part, "ab", buffering=0)  # noqa: SIM115 (closed by close)
            except OSError as error:
                raise UsageError(f"{self.part} cannot be written: {error.strerror}") from None
        return self._file

    def _lock(self) -> None:
        """Two runs must not write one output. The lock ends with the process, however that ends."""
        file = self._append_file()
        if sys.platform == "win32":
            return
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another run is writing {self.part} at this moment") from None

    def _check_fingerprint(self) -> None:
        try:
            earlier = json.loads(self.meta.read_bytes())
        except (OSError, ValueError):
            raise UsageError(
                f"{self.meta} does not say what the earlier run was, so it cannot be resumed",
                help="--overwrite starts again and replaces its output",
            ) from None
        names = {"program": "another program", "source": "a program whose file has changed since",
                 "rows": "other data", "options": "other options"}  # fmt: skip
        for name, what in names.items():
            before, now = earlier.get(name), self._fingerprint[name]
            if before != now:
                raise UsageError(
                    f"{self.out} is the output of {what}: {_difference(before, now)}",
                    help="resume with the same, or start again with --overwrite",
                )

    def _take_back(self) -> None:
        """Make OUT, which an earlier run completed, OUT.part again (rows may have been taken out of it since)."""
        self.close()
        os.replace(self.out, self.part)
        self._lock()

    def _read(self) -> None:
        """Find the rows that are finished. A last line without an end was being written when the run was killed."""
        start = 0
        with open(self.part, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                record = self._record(line, number)
                if record["row"] not in self.finished:
                    self._note(record["row"], record, start, len(line))
                start += len(line)
        self._cut(start)

    def _cut(self, length: int) -> None:
        """Drop what OUT.part holds after `length` bytes."""
        file = self._append_file()
        file.truncate(length)
        file.seek(0, os.SEEK_END)

    def _record(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
            if record["row"] in range(self._num_rows):
                return record  # type: ignore[no-any-return]
        except (ValueError, TypeError, KeyError):
            pass
        raise UsageError(
            f"{self.part}:{number} is not a row that this run could have written",
            help="repair or delete the line, or start again with --overwrite",
        )

    def _note(self, row: int, record: Mapping[str, Any], start: int, length: int) -> None:
        self.finished[row] = record.get("error") is not None
        self._places[row] = (start, length)


def _difference(before: Any, now: Any) -> str:
    if not isinstance(before, dict) or not isinstance(now, dict):
        return f"{before} there, {now} here"
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return ", ".join(f"{name} = {before.get(name)} there, {now.get(name)} here" for name in names)


def _write_all(file: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _piece(file: IO[bytes], start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


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
