"""The prefix tree of an explanation as a drawing (SVG): tokens from left to right, what parts from one another below.

A box's width is its tokens, its colour how many sequences go through it. Generated tokens are placeholders, and drawn
apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from ..runtime.prefix_tree import PrefixNode
from .explain import Explanation, Line
from .explain_text import printable
from .pictures.page import legend

_WIDTH = 1180
_ROW = 20
_MOST_ROWS = 160
_CHARACTER = 6.8
# The text of a higher box stands near its upper edge, where it is seen first.
_TALLEST = 200
_REUSE = (("once", 1, "computed for one sequence"), ("few", 4, "2 to 4"), ("many", 16, "5 to 16"))
_MOST = ("most", "17 and more")
_DARK = ("many", "most")


@dataclass(slots=True)
class _Box:
    node: PrefixNode
    start: int
    row: int
    num_rows: int


def tree_drawing(found: Explanation) -> str:
    """The drawing with its title and legend; nothing for an empty tree."""
    boxes, num_rows, num_left_out = _boxes(found.tree.root)
    if not boxes:
        return ""
    length = max(box.start + len(box.node.tokens) for box in boxes)
    shapes = "".join(_shape(box, _WIDTH / length, found) for box in boxes)
    more = f'<p class="dim">{num_left_out:,} more branches are not drawn.</p>' if num_left_out else ""
    return (
        f"<h2>The prefix tree: {found.tree.num_tokens:,} tokens of keys and values</h2>{_legend()}"
        f'<div class="scroll tall" tabindex="0" role="region" aria-label="prefix tree">'
        f'<svg width="{_WIDTH}" height="{num_rows * _ROW}" viewBox="0 0 {_WIDTH} {num_rows * _ROW}" role="img" '
        f'aria-label="prefix tree"><desc>{_described(found)}</desc>{shapes}</svg></div>{more}'
    )


def _described(found: Explanation) -> str:
    first = ", ".join(
        f"{len(node.tokens):,} tokens {_times(node.uses)}" for node in _ordered(found.tree.root)[::-1][:3]
    )
    return f"tokens from left to right; it begins with {first}"


def _legend() -> str:
    entries = [(kind, text) for kind, _, text in _REUSE] + [_MOST, ("generated", "generated (placeholders)")]
    return legend(entries, before="width: tokens; colour: sequences that share them")


def _boxes(root: PrefixNode) -> tuple[list[_Box], int, int]:
    """All boxes in rows from above, how many rows there are, and how many leaves were left out."""
    boxes: list[_Box] = []
    num_rows = num_left_out = 0
    todo: list[tuple[PrefixNode, int, list[_Box]]] = [(child, 0, []) for child in _ordered(root)]
    while todo:
        node, start, above = todo.pop()
        is_leaf = not node.children
        if is_leaf and num_rows == _MOST_ROWS:
            num_left_out += 1
            continue
        if num_rows < _MOST_ROWS:
            box = _Box(node, start, num_rows, 0)
            boxes.append(box)
            above = [*above, box]
        if is_leaf:
            num_rows += 1
            for each in above:
                each.num_rows += 1
        todo.extend((child, start + len(node.tokens), above) for child in _ordered(node))
    return [box for box in boxes if box.num_rows], num_rows, num_left_out


def _ordered(node: PrefixNode) -> list[PrefixNode]:
    """The children, the last to draw first: those that are shared most stand above, else those that came first."""
    return sorted(reversed(node.children.values()), key=lambda child: child.uses)


def _shape(box: _Box, scale: float, found: Explanation) -> str:
    """A box, in parts where prompt tokens and generated ones meet."""
    shapes, start, tokens = [], 0, box.node.tokens
    for is_generated, run in groupby(tokens, key=lambda token: token < 0):
        part = tuple(run)
        kind = "generated" if is_generated else _reuse(box.node.uses)
        shapes.append(_part(box, scale, found, start, part, kind))
        start += len(part)
    return "".join(shapes)


def _part(box: _Box, scale: float, found: Explanation, offset: int, tokens: Sequence[int], kind: str) -> str:
    x, width = (box.start + offset) * scale, len(tokens) * scale
    y, height = box.row * _ROW, box.num_rows * _ROW
    text = f"{len(tokens)} generated" if kind == "generated" else found.decode(tokens)
    tip = f"{_line_of(box.node)}{len(tokens):,} tokens, {_times(box.node.uses)}: {text}"
    label = _label(text, width)
    dark = ' class="on-dark"' if kind in _DARK else ""
    shown = (
        f'<text x="{x + 5:.1f}" y="{y + min(height, _TALLEST) / 2 + 4:.1f}"{dark}>{escape(label)}</text>'
        if label
        else ""
    )
    return (
        f'<g><title>{escape(printable(tip))}</title><rect class="{kind}" x="{x:.1f}" y="{y}" '
        f'width="{max(width, 1):.1f}" height="{height}"/>{shown}</g>'
    )


def _line_of(node: PrefixNode) -> str:
    return f"{node.owner.place} {node.owner.label}: " if isinstance(node.owner, Line) else ""


def _times(uses: int) -> str:
    return "used once" if uses == 1 else f"shared by {uses:,}"


def _reuse(uses: int) -> str:
    return next((kind for kind, most, _ in _REUSE if uses <= most), _MOST[0])


def _label(text: str, width: float) -> str:
    room = int((width - 8) / _CHARACTER)
    text = printable(" ".join(text.split()))
    if room < 3 or not text:
        return ""
    return text if len(text) <= room else text[: room - 1] + "…"
