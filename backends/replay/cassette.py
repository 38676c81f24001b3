"""What runs are recorded to and played from, together: it finds each run's place in both files."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from time import perf_counter
from types import FunctionType
from typing import Any, Literal

from ...ir.errors import RecordingError, UsageError
from ...ir.span import Span
from ...runtime.backend import Backend
from ...runtime.chat import DEFAULT_CHAT
from .asked import short
from .edit import Edit
from .events import ChatRecord, ModelRecord, RunRecord, digest, where_of
from .hosting import key_of
from .model import RecordedModel, of_model
from .recorder import Recorder
from .recording import RecordedRun, Recording
from .track import RunTrack
from .values import told

_NO_MODEL = ModelRecord(0, "nothing", (), {}, ChatRecord.of(DEFAULT_CHAT))


class Cassette:
    """A recording that is played, one that is made, or both: then what was played stands in the new one too.

    is_partial: whether what is not in the recording may be asked anew. identify: gives a hash of some code of a
    function, with all that it calls: only the same code still gives what was recorded. edit: what one event of a run
    becomes; the first run is made as that one, partially. is_endless: whether equal runs, when each was played once,
    begin again with the first.
    """

    def __init__(
        self,
        identify: Callable[[str, FunctionType], str],
        *,
        record: str | PathLike[str] | Recorder | Literal[True] | None = None,
        replay: str | PathLike[str] | Recording | None = None,
        is_partial: bool = False,
        edit: Edit | None = None,
        is_endless: bool = False,
    ) -> None:
        """record: True keeps the recording in memory; a Recorder is another's, which closes it.

        Raises RecordingError for files that cannot be read or written, UsageError for what does not go together.
        """
        if is_partial and replay is None:
            raise UsageError("a partial replay needs the recording to be replayed: replay=FILE (--replay FILE)")
        self.recording = replay if isinstance(replay, Recording) or replay is None else Recording(replay)
        self.recorder = _recorder(record)
        self.is_partial = is_partial or edit is not None
        self.edit = edit
        self._is_endless = is_endless
        self.identify = lru_cache(maxsize=None)(identify)
        self._lock = threading.Lock()
        self._num_equal: Counter[Hashable] = Counter()
        self._num_runs: Counter[Hashable] = Counter()
        self._num_open = 0
        self._runs: dict[Hashable, list[RecordedRun]] = defaultdict(list)
        for run in self.recording.runs.values() if self.recording is not None else ():
            record_of = run.record
            self._runs[record_of.parent, record_of.program, record_of.arguments].append(run)
            self._runs[record_of.parent, record_of.program].append(run)
        for runs in self._runs.values():
            runs.sort(key=lambda run: run.record.id)

    def track(
        self,
        program: str,
        arguments: Sequence[Any],
        span: Span | None,
        parent: RunTrack | None,
        form: str,
        open: Callable[[], Backend],
    ) -> RunTrack:
        """The track of a run that begins. span: the program's place. parent: the track of the run that begins it.

        open: gives the backend that the run asks where it is not played. Thread-safe. Equal runs are told apart by the
        order in which they begin.
        """
        given = [told(each) for each in arguments]
        asked = digest([key_of([data for data, _ in given])])
        with self._lock:
            number, ordinal = self._count(parent, program, asked)
            self._num_open += 1
        recorder, recording = self.recorder, self.recording
        recorded, missing = None, None
        if recording is not None:
            recorded = self._find(parent, program, asked, number, ordinal)
            if recorded is None and not self.is_partial:
                missing = self._missing(program, span)
        backend = self._backend(recorded, open)
        id = 0
        if recorder is not None:
            id = recorder.new_run()
            shown = short(tuple(arguments))[1:-1].removesuffix(",")
            above = parent.number if parent is not None else None
            place = where_of(span)
            model = recorder.model(backend)
            recorder.add(
                RunRecord(id, model, program, asked, shown, number, form, above, place, recorder.ms(perf_counter()))
            )
        return RunTrack(
            program,
            backend,
            self,
            parent,
            recorder=recorder,
            number=id,
            recording=recording,
            recorded=recorded,
            is_partial=self.is_partial,
            is_same_form=recorded is not None and recorded.record.form == form,
            missing=missing,
            arguments=given,
            edit=self.edit if parent is None else None,
        )

    def ended(self) -> None:
        """A run has ended. Thread-safe."""
        with self._lock:
            self._num_open -= 1

    def close(self) -> list[str]:
        """Let go of the file that is written; what could not be recorded, in words. Raises RecordingError."""
        if self.recorder is None:
            return []
        if self._num_open:
            runs = "a run" if self._num_open == 1 else f"{self._num_open} runs"
            self.recorder.note(f"{self.recorder.path}: {runs} had not ended when the recording did: it is not whole")
        self.recorder.close()
        self.recorder.check()
        return self.recorder.notes

    def _backend(self, recorded: RecordedRun | None, open: Callable[[], Backend]) -> Backend:
        """What a run asks: the backend itself, or what stands in for it in a replay."""
        recording = self.recording
        if self.edit is not None and recording is not None and recorded is not None:
            return of_model(recording.models[recorded.record.model], open)
        if recording is None or (self.is_partial and not recording.models):
            return open()
        if not recording.models:
            return RecordedModel(_NO_MODEL, DEFAULT_CHAT)
        model = recorded.record.model if recorded is not None else next(iter(recording.models))
        return RecordedModel(recording.models[model], recording.chat(model), open if self.is_partial else None)

    def _count(self, parent: RunTrack | None, program: str, asked: str) -> tuple[int, int]:
        """How many runs began before that are equal, and that are of the same program."""
        equal, same = (parent, program, asked), (parent, program)
        numbers = self._num_equal[equal], self._num_runs[same]
        self._num_equal[equal] += 1
        self._num_runs[same] += 1
        return numbers

    def _find(self, parent: RunTrack | None, program: str, asked: str, number: int, ordinal: int) -> RecordedRun | None:
        """The recorded run with the same arguments; else the one that began as the same of its program, which will
        show what differs.
        """
        if parent is None and self.edit is not None and self.recording is not None:
            return self.recording.runs[self.edit.run]
        above = parent.recorded.record.id if parent is not None and parent.recorded is not None else None
        equal = self._runs.get((above, program, asked), ())
        if equal and (self._is_endless or number < len(equal)):
            return equal[number % len(equal)]
        others = self._runs.get((above, program), ())
        if not equal and ordinal < len(others):
            return others[ordinal]
        return None

    def _missing(self, program: str, span: Span | None) -> RecordingError:
        assert self.recording is not None
        known = sorted({run.record.program for run in self.recording.runs.values()})
        count = sum(run.record.program == program for run in self.recording.runs.values())
        told = (
            f"{count} {'run' if count == 1 else 'runs'} of it" if count else f"runs of {', '.join(known) or 'nothing'}"
        )
        name = "the recording" if self.recording.path is None else f"the recording {self.recording.path}"
        return RecordingError(
            f"{name} has no such run of {program}; it has {told}",
            span=span,
            help="record again, or replay partially (--partial, partial=True), which runs what is new",
        )


def _recorder(record: str | PathLike[str] | Recorder | Literal[True] | None) -> Recorder | None:
    if record is None or isinstance(record, Recorder):
        return record
    return Recorder() if record is True else Recorder(Path(record))
