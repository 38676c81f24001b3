"""The picture of what constraints change: bars of shares, a row for each category."""

from collections.abc import Mapping
from html import escape
from pathlib import Path

from .evaluate import Summary

__all__ = ["draw_picture"]

_STYLE = (
    'text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #1d2530; } .dim { fill: #5d6877; } '
    ".free { fill: #c9a227; } .constrained { fill: #2f6fb3; } "
    "@media (prefers-color-scheme: dark) { text { fill: #e3e8ef; } .dim { fill: #98a4b3; } }"
)
_PANELS = (
    ("calls read", lambda each: each.readable),
    ("invented names", lambda each: each.invented),
    ("ill-typed arguments", lambda each: each.ill_typed),
    ("correct", lambda each: each.correct),
)
_LABEL, _PANEL, _BAR, _ROW, _TOP = 130, 150, 110, 34, 46


def draw_picture(file: Path, found: Mapping[str, list[Summary]]) -> None:
    """Draw the shares of both ways as bars, a row for each category and a column for each share."""
    ways = list(found)
    categories = [each.category for each in found[ways[0]]]
    width, height = _LABEL + _PANEL * len(_PANELS), _TOP + _ROW * len(categories) + 12
    parts = [
        f'<rect class="{way}" x="{8 + 90 * index}" y="6" width="11" height="11"/>'
        f'<text class="dim" x="{24 + 90 * index}" y="16">{way}</text>'
        for index, way in enumerate(ways)
    ]
    for column, (title, counted) in enumerate(_PANELS):
        left = _LABEL + _PANEL * column
        parts.append(f'<text x="{left}" y="36">{title}</text>')
        for row, way in ((row, way) for row in range(len(categories)) for way in ways):
            each = found[way][row]
            share = counted(each) / each.answers if each.answers else 0.0
            top = _TOP + _ROW * row + 13 * ways.index(way)
            parts.append(f'<rect class="{way}" x="{left}" y="{top}" width="{_BAR * share:.1f}" height="11"/>')
            parts.append(f'<text class="dim" x="{left + _BAR * share + 3:.1f}" y="{top + 10}">{share:.0%}</text>')
    for row, category in enumerate(categories):
        parts.append(f'<text x="8" y="{_TOP + _ROW * row + 17}">{escape(category)}</text>')
    about = "; ".join(f"{way}, {_told(each)}" for way in ways for each in found[way])
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-labelledby="title about"><title id="title">Calls with and without constraints</title>'
        f'<desc id="about">{escape(about)}</desc><style>{_STYLE}</style>{"".join(parts)}</svg>\n',
        encoding="utf-8",
    )


def _told(each: Summary) -> str:
    """The counts of a category in words."""
    return f"{each.category}: {', '.join(f'{title} {counted(each)} of {each.answers}' for title, counted in _PANELS)}"
