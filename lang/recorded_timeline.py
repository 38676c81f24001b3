"""The timeline of a recording: what was written down of when its runs did what (backends/replay/events.py)."""

from __future__ import annotations

from ..backends.replay import events
from ..backends.replay.recording import RecordedRun, Recording
from ..backends.replay.values import decode_error
from ..ir.errors import RecordingError
from ..ir.span import Span
from ..runtime.generation import GenRecord
from ..runtime.toolcall import ToolRecord
from .timeline import HOST, TOOLS, Part, RunTimes, Timed, Timeline, assemble, parts_of


def recorded_timeline(recording: Recording) -> Timeline:
    """The timeline of all runs. What was answered by another recording is not in it.

    Raises RecordingError for a recording without times: one of an earlier version, or without runs.
    """
    runs = [_times(run) for run in recording.runs.values() if run.record.begun_ms is not None]
    if not runs:
        raise RecordingError(f"{recording.path} tells no times: it has no runs, or is of an earlier version")
    origin = min(times.begin_ms for times, _ in runs)
    return assemble([_shifted(times, timed, origin) for times, timed in runs])


def _times(run: RecordedRun) -> tuple[RunTimes, list[Timed]]:
    begin_ms = run.record.begun_ms or 0.0
    told = [*map(_request, run.answers), *map(_tool, run.calls), *map(_host, run.hosts)]
    timed = [each for each in told if each is not None]
    ended_ms = None if run.end is None else run.end.ended_ms
    ends = [each.parts[-1].end_ms for each in timed]
    label = f"{run.record.program}({run.record.shown})"
    return RunTimes(label, begin_ms, max([begin_ms, ended_ms or begin_ms, *ends])), timed


def _request(answer: events.LMRecord) -> Timed | None:
    if answer.times is None:
        return None
    begin_ms, end_ms = answer.times
    record = _record(answer)
    return Timed(answer.branch, begin_ms, parts_of(answer.done, begin_ms, end_ms), record.span, record)


def _record(answer: events.LMRecord) -> GenRecord:
    error, span = None if answer.error is None else decode_error(answer.error), _span(answer.where)
    return GenRecord.of(answer.kind, answer.name, answer.branch, answer.sample, span, answer.done, error)


def _tool(call: events.ToolRecord) -> Timed | None:
    if call.times is None:
        return None
    arguments = call.arguments if isinstance(call.arguments, dict) else {"arguments": call.arguments}
    error = None if call.error is None else decode_error(call.error)
    record = ToolRecord(call.name, arguments, _span(call.where), call.ms, error)
    return Timed(TOOLS, call.times[0], (Part("tool", call.times[1]),), record.span, record)


def _host(host: events.HostRecord) -> Timed | None:
    if host.times is None:
        return None
    return Timed(HOST, host.times[0], (Part("host", host.times[1]),), _span(host.where), None)


def _span(where: events.Where | None) -> Span | None:
    """A place of a recording, whose file has no folder: its source is not looked for."""
    if where is None:
        return None
    file, line, column = where
    return Span(file, line, column, line, column)


def _shifted(times: RunTimes, timed: list[Timed], origin: float) -> tuple[RunTimes, list[Timed]]:
    """The same in milliseconds since another moment."""
    return RunTimes(times.label, times.begin_ms - origin, times.end_ms - origin), [
        Timed(
            each.place,
            each.begin_ms - origin,
            tuple(Part(part.kind, part.end_ms - origin) for part in each.parts),
            each.span,
            each.record,
        )
        for each in timed
    ]
