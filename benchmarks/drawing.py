"""What the benchmarks' plots (SVG) have in common: the frame, the style of texts, and the key of colours."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

# Texts, and those that matter less, for either scheme of colours.
_LIGHT = """
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #1d2530; } .dim { fill: #5d6877; }
"""
_DARK = "text { fill: #e3e8ef; } .dim { fill: #98a4b3; }"


def document(width: int, height: int, *, title: str, about: str, light: str, dark: str, body: str) -> str:
    """A plot. title, about: for those who do not see it. light, dark: styles of its own marks, for either scheme."""
    style = (
        f"{_LIGHT}{light}.rule {{ stroke: #d9dee5; }}\n"
        f"@media (prefers-color-scheme: dark) {{\n{_DARK} {dark}.rule {{ stroke: #2f3844; }} }}\n"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-labelledby="title about"><title id="title">{escape(title, quote=False)}</title>'
        f'<desc id="about">{escape(about)}</desc><style>{style}</style>{body}</svg>\n'
    )


def key(x: float, y: float, entries: Iterable[tuple[str, str]]) -> tuple[str, float]:
    """A square of each class with its name beside it, on one line; and where the line goes on."""
    shown = []
    for kind, name in entries:
        shown.append(f'<rect class="{kind}" x="{x}" y="{y}" width="11" height="11"/>')
        shown.append(f'<text class="dim" x="{x + 16}" y="{y + 10}">{escape(name)}</text>')
        x += 24 + 7 * len(name)
    return "".join(shown), x
