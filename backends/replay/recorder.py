"""Makes a recording: gives models and runs their numbers, and writes what several prompts begin with once."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ...ir.errors import RecordingError
from ...runtime.backend import Backend
from ...runtime.call_declaration import declaration_key, declaring
from ...runtime.chat import common_start
from .events import ChatRecord, DeclaredRecord, LMRecord, ModelRecord, Record, to_bytes
from .frames import FrameWriter
from .recording import Recording

# A shorter beginning is written again.
_WORTH_SHARING = 100


class Recorder:
    """A recording in the making. All methods are thread-safe. notes: what could not be recorded, in words.

    path: the file; None keeps it in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Raises RecordingError where the file is there already, or cannot be written."""
        self.path = path
        self._file = None if path is None else FrameWriter(path)
        self._kept = Recording(None) if path is None else None
        self._lock = threading.Lock()
        self._num_runs = 0
        self._models: dict[int, tuple[int, Backend]] = {}
        self._declared: set[tuple[int, str]] = set()
        self._begins: dict[Hashable, tuple[str, str]] = {}
        self._error: RecordingError | None = None
        self.notes: list[str] = []
        self._began_at = time.perf_counter()

    def ms(self, at: float) -> float:
        """Milliseconds since it began of a moment, by `time.perf_counter`."""
        return (at - self._began_at) * 1000

    def recording(self) -> Recording:
        """What was recorded up to now. Raises RecordingError for a file that is gone or damaged."""
        return Recording(self.path) if self._kept is None else self._kept

    def note(self, words: str) -> None:
        """Remember something that could not be recorded."""
        with self._lock:
            if words not in self.notes:
                self.notes.append(words)

    def new_run(self) -> int:
        """The number of a run that begins."""
        with self._lock:
            self._num_runs += 1
            return self._num_runs - 1

    def model(self, backend: Backend) -> int:
        """The number of a backend, which is written down the first time."""
        with self._lock:
            known = self._models.get(id(backend))
            if known is not None:
                return known[0]
            number = len(self._models)
            self._models[id(backend)] = number, backend
            reasons = dict(getattr(backend, "reasons", {}))
            chat = ChatRecord.of(backend.chat)
            self._add(ModelRecord(number, backend.name, tuple(sorted(backend.features)), reasons, chat))
            return number

    def declared(self, backend: Backend, schemas: Sequence[Mapping[str, Any]]) -> None:
        """Write down, the first time, how a conversation is written that declares these tools."""
        if backend.chat.sends_tools:
            return
        number, chat = self.model(backend), declaring(backend.chat, schemas)
        tools = declaration_key(schemas)
        with self._lock:
            if (number, tools) not in self._declared:
                self._declared.add((number, tools))
                self._add(DeclaredRecord(number, tools, ChatRecord.of(chat)))

    def add(self, record: Record) -> None:
        """Write a record. What keeps it from being written is told by `check`."""
        with self._lock:
            self._add(record)

    def add_lm(self, record: LMRecord, line: Hashable) -> None:
        """Write an answer; prompts of one line, which go on from the same event or none, often begin alike."""
        with self._lock:
            key = line if record.after is None else record.after
            like, begin = self._begins.setdefault(key, (record.id, record.prompt))
            same = len(common_start([begin, record.prompt])) if like != record.id else 0
            if same >= _WORTH_SHARING:
                record = replace(record, prompt=record.prompt[same:], like=like, same=same)
            self._add(record)

    def check(self) -> None:
        """Raises RecordingError if something could not be written."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _add(self, record: Record) -> None:
        if self._error is not None:
            return
        if self._file is None:
            assert self._kept is not None
            self._kept.add(record)
            return
        try:
            self._file.add(to_bytes(record))
        except RecordingError as error:
            self._error = error
        except (TypeError, ValueError, AttributeError) as error:
            self._error = RecordingError(f"{self.path}: a record cannot be written: {error}")
