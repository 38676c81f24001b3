"""A timeline as a drawing (SVG): a row for each lane, time from left to right, a colour for each kind of part.

The bars stand in milliseconds, in a drawing of their own that is stretched to the width there is: so a page zooms by
changing what of it is seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import accumulate, groupby
from math import floor, log10

from ...runtime.generation import GenRecord
from ..rendering import seconds
from ..timeline import MEANINGS, Bar, Timeline
from .colours import drawing_style
from .telling import head_of, place_of, text_of

MOST_BARS = 20_000
_HEADER_HEIGHT = 22
# The height of a lane, by how many there are at most.
_HEIGHTS = ((40, 24), (150, 18), (10**9, 11))
_EDGE = 3
_STANDALONE_WIDTH, _LABELS_WIDTH, _AXIS_HEIGHT, _LEGEND_HEIGHT, _LEGEND_COLUMNS = 840, 104, 22, 22, 2
_CHARACTER = 6.7
_LEAST_LABEL = 34
_CACHED = "the part of its prompt that was cached"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the drawing: the header of a run (lane is None), or a lane."""

    y: int
    height: int
    label: str
    run: int
    lane: int | None


def rows_of(timeline: Timeline) -> list[Row]:
    """The rows from above. A run of only one lane, and the only run, have no header."""
    height = next(height for most, height in _HEIGHTS if len(timeline.lanes) <= most)
    told = list(_row_labels(timeline, height))
    ys = accumulate((each[0] for each in told), initial=0)
    return [Row(y, high, label, run, lane) for y, (high, label, run, lane) in zip(ys, told, strict=False)]


def _row_labels(timeline: Timeline, height: int) -> Iterator[tuple[int, str, int, int | None]]:
    """Height, label, run and lane of each row."""
    for run, group in groupby(enumerate(timeline.lanes), key=lambda each: each[1].run):
        lanes = list(group)
        is_single = len(lanes) == 1 and len(timeline.runs) > 1
        if not is_single and len(timeline.runs) > 1:
            yield _HEADER_HEIGHT, timeline.runs[run].label, run, None
        for number, lane in lanes:
            label = timeline.runs[run].label if is_single else "" if lane.is_more else lane.label
            yield height, label, run, number


def height_of(rows: list[Row]) -> int:
    """How high the rows are together."""
    return rows[-1].y + rows[-1].height if rows else _HEADER_HEIGHT


def bars_svg(timeline: Timeline, rows: list[Row], attributes: str) -> str:
    """The drawing of the bars, in milliseconds. attributes: further ones of its element."""
    shown = timeline.bars[:MOST_BARS]
    ys = {row.lane: (row.y, row.height) for row in rows if row.lane is not None}
    lanes = "".join(
        f'<g transform="translate(0,{ys[lane][0] + 2})">{"".join(_bar(bar, ys[lane][1] - 4) for bar in bars)}</g>'
        for lane, bars in groupby(shown, key=lambda bar: bar.lane)
    )
    length = _number(max(timeline.length_ms, 1e-3))
    return (
        f'<svg {attributes} viewBox="0 0 {length} {height_of(rows)}" preserveAspectRatio="none" role="img" '
        f'aria-label="timeline"><desc>{escape(described(timeline))}</desc>{lanes}</svg>'
    )


def described(timeline: Timeline) -> str:
    """The drawing in words."""
    return f"{len(timeline.bars):,} bars in {len(timeline.lanes):,} lanes over {seconds(timeline.length_ms, digits=1)}"


def _bar(bar: Bar, height: int) -> str:
    """A bar with its parts, and along its lower edge how much of the prompt was cached."""
    shapes, begin_ms = [], bar.begin_ms
    for part in bar.parts:
        shapes.append(_rect(part.kind, begin_ms, part.end_ms - begin_ms, 0, height))
        begin_ms = part.end_ms
    record = bar.record
    if isinstance(record, GenRecord) and record.cached_tokens and not record.shared:
        share = min(1.0, record.cached_tokens / max(record.prompt_tokens, 1))
        width = (bar.end_ms - bar.begin_ms) * share
        edge = _EDGE if height > 2 * _EDGE + 2 else _EDGE - 1
        shapes.append(_rect("cached", bar.begin_ms, width, height - edge, edge))
    failed = " failed" if record is not None and record.error is not None else ""
    return f'<g class="bar{failed}">{"".join(shapes)}</g>'


def _rect(kind: str, x: float, width: float, y: int, height: int) -> str:
    place = f' y="{y}"' if y else ""
    return f'<rect class="{kind}" x="{_number(x)}"{place} width="{_number(width)}" height="{height}"/>'


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if value < 1e4 else f"{value:.1f}"


def legend_entries(timeline: Timeline) -> list[tuple[str, str]]:
    """What the colours in it mean, by their classes."""
    used = {part.kind for bar in timeline.bars for part in bar.parts}
    entries: list[tuple[str, str]] = [(kind, text) for kind, text in MEANINGS.items() if kind in used]
    is_cached = any(record.cached_tokens and not record.shared for record in timeline.requests)
    return [*entries, ("cached", _CACHED)] if is_cached else entries


def drawing(timeline: Timeline) -> str:
    """A drawing that stands alone, as a file of its own."""
    rows = rows_of(timeline)
    entries = legend_entries(timeline)
    height = height_of(rows)
    total = height + _AXIS_HEIGHT + _LEGEND_HEIGHT * -(-len(entries) // _LEGEND_COLUMNS) + 8
    width = _STANDALONE_WIDTH - _LABELS_WIDTH - 10
    place = f'x="{_LABELS_WIDTH}" y="{_AXIS_HEIGHT}" width="{width}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_STANDALONE_WIDTH}" height="{total}" '
        f'viewBox="0 0 {_STANDALONE_WIDTH} {total}" role="img"><title>{escape(_title(timeline))}</title>'
        f"<desc>{escape(described(timeline))}</desc><style>{_style(entries)}</style>"
        f'<rect class="ground" width="{_STANDALONE_WIDTH}" height="{total}"/>'
        f"{_axis(timeline.length_ms, width, height)}{''.join(map(_row_label, rows))}{bars_svg(timeline, rows, place)}"
        f"{_texts(timeline, rows, width)}{_legend(entries, height + _AXIS_HEIGHT)}</svg>\n"
    )


def _title(timeline: Timeline) -> str:
    first = timeline.runs[0].label if timeline.runs else "nothing"
    return f"timeline of {first}" + (f" and {len(timeline.runs) - 1:,} more" if len(timeline.runs) > 1 else "")


def _style(entries: list[tuple[str, str]]) -> str:
    own = ".tick{stroke:var(--rule)}.failed rect{stroke:var(--failed)}"
    return drawing_style(kind for kind, _ in entries) + own


def _axis(length_ms: float, width: int, height: int) -> str:
    marks = []
    for at in ticks(length_ms):
        x, label = _LABELS_WIDTH + at / max(length_ms, 1e-3) * width, _time_label(at, length_ms)
        marks.append(
            f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{_AXIS_HEIGHT - 4}" y2="{_AXIS_HEIGHT + height}"/>'
        )
        if x + 3 + len(label) * _CHARACTER < _STANDALONE_WIDTH:
            marks.append(f'<text class="dim" x="{x + 3:.1f}" y="{_AXIS_HEIGHT - 8}">{label}</text>')
    return "".join(marks)


def ticks(length_ms: float) -> list[float]:
    """Round times from 0 up to less than the length, at most ten."""
    step = 10.0 ** floor(log10(max(length_ms, 1e-3) / 10))
    step = next(step * times for times in (1, 2, 5, 10, 20) if length_ms / (step * times) <= 10)
    return [number * step for number in range(10) if number * step < length_ms * 0.97]


def _time_label(at: float, length_ms: float) -> str:
    return f"{at / 1000:g} s" if length_ms > 5000 else f"{at:g} ms"


def _row_label(row: Row) -> str:
    x, kind = (4, "") if row.lane is None else (12, ' class="dim"')
    label = head_of(row.label, int((_LABELS_WIDTH - x) / _CHARACTER))
    return f'<text{kind} x="{x}" y="{_AXIS_HEIGHT + row.y + row.height / 2 + 4:.0f}">{escape(label)}</text>'


def _texts(timeline: Timeline, rows: list[Row], width: int) -> str:
    """What the bars that have room for it are called, and came to."""
    ys = {row.lane: row.y + row.height / 2 for row in rows if row.height >= _HEIGHTS[1][1]}
    scale = width / max(timeline.length_ms, 1e-3)
    found = []
    for bar in timeline.bars[:MOST_BARS]:
        room = (bar.end_ms - bar.begin_ms) * scale
        if bar.lane in ys and room >= _LEAST_LABEL:
            text = head_of(bar_label(bar), int((room - 6) / _CHARACTER))
            x, y = _LABELS_WIDTH + bar.begin_ms * scale + 3, _AXIS_HEIGHT + ys[bar.lane] + 2
            found.append(f'<text x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>')
    return "".join(found)


def bar_label(bar: Bar) -> str:
    """Its name, and what came of it; of host code, its line."""
    if bar.record is None:
        return place_of(bar.span) or bar.name
    return f"{bar.name}: {head_of(text_of(bar), 80)}"


def _legend(entries: list[tuple[str, str]], top: int) -> str:
    shapes = []
    for number, (kind, text) in enumerate(entries):
        row, column = divmod(number, _LEGEND_COLUMNS)
        x, y = 12 + column * _STANDALONE_WIDTH // _LEGEND_COLUMNS, top + 10 + row * _LEGEND_HEIGHT
        shapes.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="11" height="11"/>'
            f'<text class="dim" x="{x + 17}" y="{y + 10}">{escape(text)}</text>'
        )
    return "".join(shapes)
