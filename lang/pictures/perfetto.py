"""A timeline in Chrome's trace event format: a process for each run, a thread for each lane, complete events ("X")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ...runtime.generation import GenRecord
from ..timeline import Bar, Part, Timeline
from .telling import place_of, source_of, text_of


def trace_json(timeline: Timeline) -> bytes:
    """The trace as JSON. Times are microseconds; numbers that JSON lacks are null."""
    events = [*_names(timeline), *(event for bar in timeline.bars for event in _events(timeline, bar))]
    return msgspec.json.encode({"displayTimeUnit": "ms", "traceEvents": events}, enc_hook=str)


def _names(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """The names of processes and threads, whose numbers begin at 1."""
    for number, run in enumerate(timeline.runs, 1):
        yield {"ph": "M", "name": "process_name", "pid": number, "tid": 0, "args": {"name": run.label}}
    for number, lane in enumerate(timeline.lanes, 1):
        place = {"pid": lane.run + 1, "tid": number}
        yield {"ph": "M", "name": "thread_name", **place, "args": {"name": lane.label}}
        yield {"ph": "M", "name": "thread_sort_index", **place, "args": {"sort_index": number}}


def _events(timeline: Timeline, bar: Bar) -> Iterator[dict[str, Any]]:
    """The whole of a bar, and its parts inside it where there are several."""
    place = {"pid": timeline.lanes[bar.lane].run + 1, "tid": bar.lane + 1}
    kind = "host" if bar.record is None else bar.record.kind
    yield {"ph": "X", "name": bar.name, "cat": kind, **place, **_times(bar.begin_ms, bar.end_ms), "args": _told(bar)}
    begin_ms = bar.begin_ms
    for part in bar.parts if len(bar.parts) > 1 else ():
        yield _part(part, begin_ms, place)
        begin_ms = part.end_ms


def _part(part: Part, begin_ms: float, place: dict[str, int]) -> dict[str, Any]:
    return {"ph": "X", "name": part.kind, "cat": part.kind, **place, **_times(begin_ms, part.end_ms)}


def _times(begin_ms: float, end_ms: float) -> dict[str, float]:
    return {"ts": begin_ms * 1000, "dur": (end_ms - begin_ms) * 1000}


def _told(bar: Bar) -> dict[str, Any]:
    told: dict[str, Any] = {"line": place_of(bar.span), "source": source_of(bar.span), "text": text_of(bar)}
    record = bar.record
    if isinstance(record, GenRecord):
        told |= {
            "prompt_tokens": record.prompt_tokens,
            "cached_tokens": record.cached_tokens,
            "generated_tokens": record.generated_tokens,
            "finish_reason": record.finish_reason,
        }
    if record is not None and record.error is not None:
        told["error"] = f"{type(record.error).__name__}: {record.error}"
    return {name: value for name, value in told.items() if value != ""}
