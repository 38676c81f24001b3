"""When what ran: the requests, tool calls and host code of runs, by lanes.

Each branch of a run is a lane, tool calls have one, and so has host code that did not run on the loop; what overlaps
in a lane gets lanes of its own below. Of a request, the model's side of the time is told in parts: waiting, prefill and
decoding where the backend knows them (runtime/request.py), else all of it as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ..ir.span import Span
from ..runtime.context import Context, HostTime
from ..runtime.generation import Generation, GenRecord
from ..runtime.request import Done
from ..runtime.toolcall import ToolCall, ToolRecord
from .transcript import branch_label

if TYPE_CHECKING:
    from .run import Run

Kind = Literal["wait", "prefill", "decode", "model", "shared", "replayed", "tool", "host"]
MEANINGS: dict[Kind, str] = {
    "wait": "waits for its turn",
    "prefill": "prefill: its prompt is computed",
    "decode": "decodes",
    "model": "the model's answer, of which no more is known",
    "shared": "waits for the answer of an equal request",
    "replayed": "answered by a recording",
    "tool": "a tool",
    "host": "code of yours, with what it waits for",
}
TOOLS, HOST = "tools", "your code"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a bar: what went on up to `end_ms`, from the end of the part before."""

    kind: Kind
    end_ms: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A request, a tool call or a piece of host code. Times are milliseconds since the timeline's beginning.

    lane: its number in the timeline. record: what the trace says of it; None for host code.
    """

    lane: int
    begin_ms: float
    parts: tuple[Part, ...]
    span: Span | None
    record: GenRecord | ToolRecord | None

    @property
    def end_ms(self) -> float:
        """When it ended."""
        return self.parts[-1].end_ms

    @property
    def name(self) -> str:
        """What it is called: its variable, its tool, or what kind of thing it is."""
        if self.record is None:
            return HOST
        return self.record.name or self.record.kind

    def seconds_of(self, kind: Kind) -> float:
        """How long one kind of part took, in seconds."""
        begins = [self.begin_ms, *(part.end_ms for part in self.parts)]
        spent = (part.end_ms - begin for begin, part in zip(begins, self.parts, strict=False) if part.kind == kind)
        return sum(spent) / 1000


@dataclass(frozen=True, slots=True)
class Lane:
    """A line of a timeline. run: the number of its run. is_more: whether it only holds what overlaps in that above."""

    run: int
    label: str
    is_more: bool


@dataclass(frozen=True, slots=True)
class RunTimes:
    """When a run began and ended, in milliseconds. label: its program, and its row."""

    label: str
    begin_ms: float
    end_ms: float


@dataclass(frozen=True)
class Timeline:
    """All that is known of when some runs did what. bars: by lane, then by time."""

    runs: tuple[RunTimes, ...]
    lanes: tuple[Lane, ...]
    bars: tuple[Bar, ...]

    @cached_property
    def length_ms(self) -> float:
        """From the first run's beginning to the last one's end."""
        return max((run.end_ms for run in self.runs), default=0.0)

    @property
    def requests(self) -> list[GenRecord]:
        """What the trace says of the requests in it."""
        return [bar.record for bar in self.bars if isinstance(bar.record, GenRecord)]

    def html(self) -> str:
        """A page that needs nothing from elsewhere."""
        from .pictures.timeline_page import page

        return page(self)

    def _repr_html_(self) -> str:
        from .pictures.page import framed

        return framed(self.html())

    def svg(self) -> str:
        """A drawing that stands alone."""
        from .pictures.timeline_drawing import drawing

        return drawing(self)

    def perfetto(self) -> bytes:
        """Chrome's trace format, as ui.perfetto.dev and chrome://tracing read it: JSON."""
        from .pictures.perfetto import trace_json

        return trace_json(self)


def timeline(runs: Sequence[Run]) -> Timeline:
    """The timeline of runs of this process. Raises UsageError for one of another process."""
    contexts = [run.state.prompt.context for run in runs]
    origin = min((context.began_at for context in contexts), default=0.0)
    pairs = zip(contexts, run_labels(runs), strict=True)
    return assemble([_times(context, label, origin) for context, label in pairs])


@dataclass(frozen=True, slots=True)
class Timed:
    """A bar that has no lane yet. place: the lane it belongs to: a branch, or the name of one."""

    place: tuple[int, ...] | str
    begin_ms: float
    parts: tuple[Part, ...]
    span: Span | None
    record: GenRecord | ToolRecord | None


def assemble(runs: Iterable[tuple[RunTimes, list[Timed]]]) -> Timeline:
    """A timeline of runs, whose bars get their lanes here."""
    times: list[RunTimes] = []
    lanes: list[Lane] = []
    bars: list[Bar] = []
    for run, timed in runs:
        for place, inside in _places(timed):
            for number, row in enumerate(_rows(inside)):
                bars += [Bar(len(lanes), each.begin_ms, each.parts, each.span, each.record) for each in row]
                lanes.append(Lane(len(times), _lane_label(place), number > 0))
        times.append(run)
    return Timeline(tuple(times), tuple(lanes), tuple(bars))


def _places(timed: list[Timed]) -> Iterator[tuple[tuple[int, ...] | str, list[Timed]]]:
    """What belongs to each lane, in the order of the lanes: branches, tools, host code."""
    places: dict[tuple[int, ...] | str, list[Timed]] = {}
    for each in timed:
        places.setdefault(each.place, []).append(each)
    branches = sorted(place for place in places if not isinstance(place, str))
    yield from ((branch, places[branch]) for branch in branches)
    yield from ((name, places[name]) for name in (TOOLS, HOST) if name in places)


def _rows(timed: list[Timed]) -> list[list[Timed]]:
    """The bars of a lane in rows in which none overlaps another."""
    rows: list[list[Timed]] = []
    for each in sorted(timed, key=lambda each: (each.begin_ms, each.parts[-1].end_ms)):
        free = (row for row in rows if row[-1].parts[-1].end_ms <= each.begin_ms)
        row = next(free, None)
        if row is None:
            rows.append([each])
        else:
            row.append(each)
    return rows


def _lane_label(place: tuple[int, ...] | str) -> str:
    if isinstance(place, str):
        return place
    return f"branch {branch_label(place)}" if place else "first state"


def run_labels(runs: Sequence[Run]) -> list[str]:
    """What pictures call runs: their programs, with the rows of a batch. Raises UsageError as `timeline` does."""
    names = [getattr(run.state.prompt.context.owner.kind, "__qualname__", "run") for run in runs]
    is_row = [run.row is not None and len(runs) > 1 for run in runs]
    return [f"{name}, row {run.row}" if row else name for name, run, row in zip(names, runs, is_row, strict=True)]


def _times(context: Context, label: str, origin: float) -> tuple[RunTimes, list[Timed]]:
    begin_ms = (context.began_at - origin) * 1000
    timed = [_of_host(time, origin) for time in context.host_times]
    for each in context.leaves():
        told = _of_tool(each, origin) if isinstance(each, ToolCall) else _of_request(each, origin)
        if told is not None:
            timed.append(told)
    ends = [each.parts[-1].end_ms for each in timed]
    return RunTimes(label, begin_ms, max([begin_ms + context.usage.wall_ms, *ends])), timed


def _of_host(time: HostTime, origin: float) -> Timed:
    begin_ms, end_ms = (time.begun_at - origin) * 1000, (time.ended_at - origin) * 1000
    return Timed(HOST, begin_ms, (Part("host", end_ms),), time.span, None)


def _of_tool(call: ToolCall, origin: float) -> Timed | None:
    if call.began_at is None:  # played, or given up before it began
        return None
    begin_ms, record = (call.began_at - origin) * 1000, call.record()
    return Timed(TOOLS, begin_ms, (Part("tool", begin_ms + record.ms),), record.span, record)


def _of_request(request: Generation, origin: float) -> Timed | None:
    if request.sent_at is None or request.ended_at is None:
        return None
    begin_ms, end_ms = (request.sent_at - origin) * 1000, (request.ended_at - origin) * 1000
    parts = (Part("replayed", end_ms),) if request.is_played else parts_of(request.done, begin_ms, end_ms)
    record = request.record()
    return Timed(record.branch, begin_ms, parts, record.span, record)


def parts_of(done: Done | None, begin_ms: float, end_ms: float) -> tuple[Part, ...]:
    """The parts of a request that was sent at `begin_ms` and ended at `end_ms`; done: None if it failed."""
    if done is None:
        return (Part("model", end_ms),)
    if done.shared:
        return (Part("shared", end_ms),)
    submitted_ms = end_ms - done.wall_ms  # the backend's clock begins later than ours: the prompt is tokenized before
    ends: list[tuple[Kind, float]] = [("wait", submitted_ms + done.queue_ms)]
    if done.first_ms is None:
        ends.append(("model", end_ms))
    else:
        ends += [("prefill", submitted_ms + done.first_ms), ("decode", end_ms)]
    parts, at = [], begin_ms
    for kind, end in ends:
        until = min(max(end, at), end_ms)
        if until > at:
            parts.append(Part(kind, until))
        at = until
    return tuple(parts) or (Part("model", end_ms),)
