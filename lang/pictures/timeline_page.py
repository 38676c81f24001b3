"""A timeline as a page: figures, the drawing, and what a script needs to zoom it and to tell what a bar is."""

from __future__ import annotations

from html import escape

import msgspec

from ...runtime.generation import GenRecord
from ..rendering import seconds
from ..timeline import Bar, Timeline
from .page import document, figures, legend
from .telling import beginning, bytes_each, error_of, head_of, place_of, source_of, text_of, tokens_of
from .timeline_drawing import MOST_BARS, Row, bar_label, bars_svg, height_of, legend_entries, rows_of

_HELP = "drag or arrow keys: move; + and −, or Ctrl and the wheel: zoom; 0: all; click a bar: keep what is said of it"


def page(timeline: Timeline) -> str:
    """The whole page."""
    rows = rows_of(timeline)
    runs = timeline.runs
    heading = runs[0].label if len(runs) == 1 else f"{len(runs):,} runs"
    left_out = len(timeline.bars) - MOST_BARS
    more = f'<p class="dim">{left_out:,} more bars are not drawn.</p>' if left_out > 0 else ""
    zooms = (("in", "+"), ("out", "−"), ("all", "all"))
    buttons = "".join(f'<button type="button" data-zoom="{what}">{sign}</button>' for what, sign in zooms)
    body = (
        f"{figures(_figures(timeline))}{legend(legend_entries(timeline))}"
        f'<p class="dim zoom">{buttons} {_HELP}</p>{_chart(timeline, rows)}{more}'
        f'<div id="told" hidden="hidden"></div><script type="application/json" id="bars">{_data(timeline)}</script>'
    )
    length = seconds(timeline.length_ms, digits=1)
    subtitle = f"{len(timeline.bars):,} bars in {len(timeline.lanes):,} lanes, {length}"
    return document(f"ramify trace: {heading}", heading, subtitle, body, style="timeline.css", script="timeline.js")


def _figures(timeline: Timeline) -> list[tuple[str, str]]:
    requests = timeline.requests
    prompt = sum(record.prompt_tokens for record in requests)
    cached = sum(record.cached_tokens for record in requests)
    busy_ms = sum(bar.end_ms - bar.begin_ms for bar in timeline.bars if isinstance(bar.record, GenRecord))
    return [
        (seconds(timeline.length_ms, digits=1), "from begin to end"),
        (f"{len(requests):,}", "requests"),
        (f"{busy_ms / timeline.length_ms:.1f}" if timeline.length_ms else "0", "requests at once, on average"),
        (f"{prompt:,}", "prompt tokens"),
        (f"{cached / prompt:.0%}" if prompt else "0%", "of them cached"),
        (f"{sum(record.generated_tokens for record in requests):,}", "tokens generated"),
    ]


def _chart(timeline: Timeline, rows: list[Row]) -> str:
    labels = "".join(_label(row) for row in rows)
    bars = bars_svg(timeline, rows, f'id="drawing" width="100%" height="{height_of(rows)}"')
    return (
        '<div id="chart" tabindex="0" role="region" aria-label="timeline"><div class="corner"></div>'
        f'<svg id="axis" width="100%" height="22"></svg><div class="labels">{labels}</div>'
        f'<div class="plot"><svg id="lines" width="100%" height="{height_of(rows)}"></svg>{bars}'
        f'<svg id="texts" width="100%" height="{height_of(rows)}"></svg></div></div>'
    )


def _label(row: Row) -> str:
    kind = "header" if row.lane is None else "lane"
    name = escape(head_of(row.label, 80))
    return f'<div class="{kind}" style="height:{row.height}px" title="{name}">{name}</div>'


def _data(timeline: Timeline) -> str:
    """For each bar: what it is called, the number of its line, its text, its tokens and its error; and the lines."""
    bars = timeline.bars[:MOST_BARS]
    most = bytes_each(len(bars))
    lines: dict[str, int] = {}
    told = [_told(timeline, bar, lines, most) for bar in bars]
    data = msgspec.json.encode({"length": timeline.length_ms, "lines": list(lines), "bars": told}, enc_hook=str)
    text = data.decode("utf-8")
    for character in "<>&":  # so that no text of a program ends the script, and the page is XML
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _told(timeline: Timeline, bar: Bar, lines: dict[str, int], most: int) -> tuple[str, int, str, str, str]:
    line = f"{place_of(bar.span)}  {head_of(source_of(bar.span), 160)}" if bar.span is not None else ""
    number = lines.setdefault(line, len(lines))
    tokens = tokens_of(bar.record) if isinstance(bar.record, GenRecord) else ""
    name = bar.name if bar.record is not None else bar_label(bar)
    return name, number, beginning(text_of(bar), most), tokens, beginning(error_of(bar), 400)
