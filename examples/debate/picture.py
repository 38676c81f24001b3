"""A picture (SVG) of one debate: how much of each turn's prompt came from the cache."""

from collections.abc import Sequence
from html import escape

from .recorded import Call

__all__ = ["picture"]

_STYLE = """
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #1d2530; } .dim { fill: #5d6877; }
.cached { fill: #2f7fc2; } .computed { fill: #d98032; }
@media (prefers-color-scheme: dark) { text { fill: #e3e8ef; } .dim { fill: #98a4b3; } }
"""
_LEFT, _RIGHT, _TOP, _ROW, _WIDTH = 130, 140, 54, 22, 760


def picture(calls: Sequence[Call]) -> str:
    """The turns of a debate from top to bottom: the tokens of each prompt, cached ones first."""
    scale = (_WIDTH - _LEFT - _RIGHT) / max(len(call.prompt) for call in calls)
    height = _TOP + _ROW * len(calls) + 10
    rows = "".join(_row(number, call, scale) for number, call in enumerate(calls))
    cached, prompt = sum(call.cached for call in calls), sum(len(call.prompt) for call in calls)
    title = (
        f"A debate of {len(calls)} turns: {prompt:,} prompt tokens, {cached:,} from the cache ({cached / prompt:.0%})"
    )
    about = "For each turn, in order, a bar of its prompt's tokens: those from the radix cache, then those computed."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="title about">'
        f'<title id="title">{escape(title)}</title><desc id="about">{escape(about)}</desc><style>{_STYLE}</style>'
        f'<text x="10" y="20">{escape(title)}</text>{_key()}{rows}</svg>\n'
    )


def _key() -> str:
    return (
        f'<rect class="cached" x="{_LEFT}" y="30" width="11" height="11"/>'
        f'<text class="dim" x="{_LEFT + 16}" y="40">from the cache</text>'
        f'<rect class="computed" x="{_LEFT + 120}" y="30" width="11" height="11"/>'
        f'<text class="dim" x="{_LEFT + 136}" y="40">computed</text>'
    )


def _row(number: int, call: Call, scale: float) -> str:
    y = _TOP + _ROW * number
    cached, width = call.cached * scale, len(call.prompt) * scale
    return (
        f'<text x="{_LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(call.role)}</text>'
        f'<rect class="cached" x="{_LEFT}" y="{y}" width="{cached:.1f}" height="16"/>'
        f'<rect class="computed" x="{_LEFT + cached:.1f}" y="{y}" width="{width - cached:.1f}" height="16"/>'
        f'<text class="dim" x="{_LEFT + width + 6:.1f}" y="{y + 12}">'
        f"{len(call.prompt):,}, {call.cached / len(call.prompt):.0%} cached</text>"
    )
