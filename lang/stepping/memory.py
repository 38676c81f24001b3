"""What a program was answered in all attempts to step through it: what the next attempt plays, as far as it asks that.

Going back is a new attempt, up to an earlier step, on the recordings of those before: it asks no model and calls no
tool. What comes behind that step is kept, and played again when the program asks for the same.
"""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from ...backends.replay.cassette import Cassette
from ...backends.replay.events import LMRecord, ToolRecord
from ...backends.replay.hosting import host_key, key_of
from ...backends.replay.recorder import Recorder
from ...backends.replay.recording import RecordedRun, Recording, place_of
from ..identity import code_identity


class Memory:
    """The recordings of the attempts, in memory."""

    def __init__(self) -> None:
        self._recorder = Recorder()

    def cassette(self) -> Cassette:
        """That of a new attempt: it plays what is known and records all."""
        known = merged(self._recorder.recording())
        return Cassette(code_identity, record=self._recorder, replay=known, is_partial=True)

    @property
    def notes(self) -> list[str]:
        """What could not be recorded, and is asked again, in words."""
        return self._recorder.notes


def merged(recording: Recording) -> Recording:
    """A recording in which equal runs are one, with each answer once. It has no models: the program's own is asked."""
    made = Recording(None)
    same: dict[int, int] = {}
    known: dict[Hashable, int] = {}
    seen: set[Hashable] = set()
    for number, run in recording.runs.items():
        record = run.record
        parent = None if record.parent is None else same[record.parent]
        one = known.setdefault((parent, record.program, record.arguments, record.number), number)
        same[number] = one
        into = made.runs.setdefault(one, RecordedRun(msgspec.structs.replace(record, parent=parent)))
        into.answers += [each for each in run.answers if _is_answer(each) and _is_new((one, _of_answer(each)), seen)]
        into.calls += [each for each in run.calls if each.lost is None and _is_new((one, _of_call(each)), seen)]
        into.hosts += [each for each in run.hosts if _is_new((one, host_key(each)), seen)]
        into.orders += run.orders
    return made


def _is_answer(record: LMRecord) -> bool:
    return record.done is not None and record.done.finish_reason != "cancelled"


def _of_answer(record: LMRecord) -> Hashable:
    return "answer", place_of(record), record.hash, key_of(record.request)


def _of_call(record: ToolRecord) -> Hashable:
    return "call", record.name, key_of(record.arguments), record.number


def _is_new(key: Hashable, seen: set[Hashable]) -> bool:
    is_new = key not in seen
    seen.add(key)
    return is_new
