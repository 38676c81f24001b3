"""Reads a recording: its runs by program and arguments, and what each was answered by place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import msgspec

from ...ir.errors import RecordingError
from ...runtime.chat import ChatFormat
from .events import (
    DeclaredRecord,
    EndRecord,
    HostRecord,
    LMRecord,
    ModelRecord,
    OrderRecord,
    Record,
    RunRecord,
    ToolRecord,
    of_bytes,
    place_text,
)
from .frames import read_frames

LMPlace = tuple[str, tuple[int, ...], int, int]
"""Where a generation stands in its run: kind, branch, number there, sample."""


def place_of(record: LMRecord) -> LMPlace:
    """Where an answer stands."""
    return record.kind, record.branch, record.number, record.sample


@dataclass(slots=True)
class RecordedRun:
    """One run's events in the order in which they came. end: how it ended; None where the recording stops before."""

    record: RunRecord
    answers: list[LMRecord] = field(default_factory=list)
    calls: list[ToolRecord] = field(default_factory=list)
    hosts: list[HostRecord] = field(default_factory=list)
    orders: list[OrderRecord] = field(default_factory=list)
    end: EndRecord | None = None

    @property
    def ended_well(self) -> bool:
        """Whether it ran to its end without an error."""
        return self.end is not None and self.end.error is None


class Recording:
    """All that a file holds. models: the backends by their numbers. runs: in the order in which they began.

    path: the file; None begins one in memory, to which records are added.
    """

    def __init__(self, path: str | PathLike[str] | None) -> None:
        """Raises RecordingError for a file that is not there, is no recording, or is damaged."""
        self.path = None if path is None else Path(path)
        self.models: dict[int, ModelRecord] = {}
        self.runs: dict[int, RecordedRun] = {}
        self._answers: dict[str, LMRecord] = {}
        self._chats: dict[int, ChatFormat] = {}
        self._declared: list[DeclaredRecord] = []
        for record in records(self.path) if self.path is not None else ():
            self.add(record)

    def add(self, record: Record) -> None:
        """Take a record. Raises RecordingError for one of a run that is not in it."""
        try:
            if isinstance(record, ModelRecord):
                self.models[record.id] = record
            elif isinstance(record, DeclaredRecord):
                self._declared.append(record)
            elif isinstance(record, RunRecord):
                self.runs[record.id] = RecordedRun(record)
            elif isinstance(record, EndRecord):
                self.runs[record.run].end = record
            elif isinstance(record, ToolRecord):
                self.runs[record.run].calls.append(record)
            elif isinstance(record, OrderRecord):
                self.runs[record.run].orders.append(record)
            elif isinstance(record, HostRecord):
                self.runs[record.run].hosts.append(record)
            else:
                self.runs[record.run].answers.append(record)
                self._answers[record.id] = record
        except KeyError:
            raise RecordingError(f"{self.path} is damaged: an event is of a run that is not in it") from None

    def chat(self, model: int) -> ChatFormat:
        """How a model's messages are written."""
        chat = self._chats.get(model)
        if chat is None:
            chat = self._chats[model] = self.models[model].chat.format()
            for each in self._declared:
                if each.model == model:
                    chat.declared[each.tools] = each.chat.format()
        return chat

    def prompt(self, record: LMRecord) -> str:
        """The whole prompt of an answer, as far as it is in the file."""
        parts = [self._tail(record)]
        while record.after is not None and record.after in self._answers:
            record = self._answers[record.after]
            parts += [_text_of(record), self._tail(record)]
        return "".join(reversed(parts))

    def _tail(self, record: LMRecord) -> str:
        begin = ""
        if record.like is not None and record.like in self._answers:
            begin = self._tail(self._answers[record.like])[: record.same]
        return begin + record.prompt


def _text_of(record: LMRecord) -> str:
    """What an answer added to its prompt."""
    return "" if record.done is None else record.done.text


def records(path: Path) -> Iterator[Record]:
    """The records of a file, in order. Raises RecordingError."""
    if not path.exists():
        raise RecordingError(
            f"there is no recording {str(path)!r}",
            help=f"make one: ramify run ... --record {path}, or with rf.record({str(path)!r})",
        )
    for payload in read_frames(path):
        try:
            yield of_bytes(payload)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise RecordingError(f"{path} holds what this version of ramify does not know: {error}") from None


def json_lines(path: Path) -> Iterator[bytes]:
    """The records as JSON, one a line; numbers that JSON lacks are null, bytes are Base64."""
    for record in records(path):
        yield msgspec.json.encode(record, enc_hook=str)


def summary(recording: Recording) -> list[str]:
    """What a recording holds, in lines."""
    lines = []
    for run in recording.runs.values():
        record = run.record
        how = "" if run.ended_well else ", stopped before its end" if run.end is None else ", failed"
        tools = f", {_counted(len(run.calls), 'tool call')}" if run.calls else ""
        model = recording.models[record.model].name
        asked = f"{_counted(len(run.answers), 'request')} on {model}{tools}"
        lines.append(f"{record.id}: {record.program}({record.shown}), {record.form}: {asked}{how}")
        told = {f"{place_text(host.where)}: {why}" for host in run.hosts for why in host.lost.values()}
        lines += [f"   not recorded, so it runs again: {each}" for each in sorted(told)]
    return lines


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
