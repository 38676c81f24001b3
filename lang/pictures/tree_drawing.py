"""Prompt trees as a drawing (SVG) that stands alone: texts to the left, their tokens to the right."""

from __future__ import annotations

from html import escape

from .colours import drawing_style
from .telling import head_of
from .tree_rows import MEANINGS, Row, Rows, row_text

_WIDTH, _TEXTS, _MARGIN = 840, 500, 10
_ROW, _STEP, _CHARACTER, _MOST_ROWS = 20, 18, 6.7, 400
_LEGEND_HEIGHT = 26


def drawing(title: str, found: Rows) -> str:
    """The drawing of a run's rows, of the first 400 at most."""
    rows = found.rows[:_MOST_ROWS]
    more = len(found.rows) - len(rows)
    height = (len(rows) + bool(more)) * _ROW + _LEGEND_HEIGHT + 8
    shapes = "".join(_row(row, number, found.length) for number, row in enumerate(rows))
    last = f'<text class="dim" x="12" y="{len(rows) * _ROW + 18}">{more:,} more rows</text>' if more else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'role="img"><title>{escape(title)}</title><desc>{escape(described(found))}</desc><style>{_style()}</style>'
        f'<rect class="ground" width="{_WIDTH}" height="{height}"/>{shapes}{last}'
        f"{_legend(found, height - _LEGEND_HEIGHT)}</svg>\n"
    )


def described(found: Rows) -> str:
    """The tree in words."""
    branches = sum(row.label.startswith("branch") and not row.label.endswith("goes on") for row in found.rows)
    requests = sum(bool(row.name) for row in found.rows)
    return f"{branches:,} branches with {requests:,} requests; the longest has {found.length:,} {found.unit}"


def origins_in(found: Rows) -> list[tuple[str, str]]:
    """What the colours in it mean."""
    used = {segment.origin for row in found.rows for segment in row.segments}
    return [(origin, text) for origin, text in MEANINGS.items() if origin in used]


def _style() -> str:
    own = "tspan.dim{fill:var(--dim)}.strong{font-weight:bold}.wrong{fill:var(--failed)}"
    return f"{drawing_style(MEANINGS)}{own}.rule{{stroke:var(--rule)}}.end{{stroke:var(--ink)}}"


def _row(row: Row, number: int, length: int) -> str:
    y, x = number * _ROW + 6, _MARGIN + row.depth * _STEP
    guides = "".join(
        f'<line class="rule" x1="{at}" x2="{at}" y1="{y - 3}" y2="{y + _ROW - 3}"/>'
        for at in (_MARGIN + depth * _STEP + 4 for depth in range(row.depth))
    )
    room = max(int((_TEXTS - x - 10) / _CHARACTER), 8)
    if row.label:
        told = f'<tspan class="dim"> {escape(row.told)}</tspan>' if row.told else ""
        return f'{guides}<text class="strong" x="{x}" y="{y + 13}">{escape(row.label)}{told}</text>'
    before = " ".join(filter(None, [f"{row.role}:" if row.role else "", f"{row.name} =" if row.name else ""]))
    text = row_text(row, max(room - len(before) - 3, 4))
    kind = ' class="wrong"' if row.is_failed else ""
    return (
        f'{guides}<text x="{x + 6}" y="{y + 13}"><tspan class="dim">{escape(before)} </tspan>'
        f"<tspan{kind}>{escape(text)}</tspan></text>{_bar(row, y, length)}"
    )


def _bar(row: Row, y: int, length: int) -> str:
    scale = (_WIDTH - _TEXTS - 60) / max(length, 1)
    shapes = "".join(
        f'<rect class="{segment.origin}" x="{_TEXTS + segment.begin * scale:.1f}" y="{y + 3}" '
        f'width="{max((segment.end - segment.begin) * scale, 1):.1f}" height="12"/>'
        for segment in row.segments
    )
    if row.ends_at is None:
        return shapes
    x = _TEXTS + row.ends_at * scale + 2
    return (
        f'{shapes}<line class="end" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 1}" y2="{y + 17}"/>'
        f'<text class="dim" x="{x + 4:.1f}" y="{y + 13}">{row.ends_at:,}</text>'
    )


def _legend(found: Rows, top: int) -> str:
    shapes = [f'<text class="dim" x="{_TEXTS}" y="{top + 14}">{found.unit}</text>']
    for number, (origin, text) in enumerate(origins_in(found)):
        x = 12 + number * 150
        shapes.append(f'<rect class="{origin}" x="{x}" y="{top + 4}" width="11" height="11"/>')
        shapes.append(f'<text class="dim" x="{x + 17}" y="{top + 14}">{escape(head_of(text, 24))}</text>')
    return "".join(shapes)
