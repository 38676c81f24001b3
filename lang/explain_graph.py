"""The IR of an explanation as a drawing (SVG): ops in boxes, dependences as arrows from above, prompts drawn thick.

A box that the pointer is on, or that has the focus, shows what it takes and what it gives in another colour.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ..ir.core import Function, Op, Value
from .explain import Costs, Explanation, line_key
from .explain_boxes import Box, Part, Row, boxes_of, is_place
from .explain_layout import HEAD, PADDING, ROW_HEIGHT, place
from .explain_text import printable
from .pictures.page import legend

_MARGIN = 14.0
_BEND = 16.0
# A function of more ops than this is not drawn: nobody would find anything in it.
_MOST_OPS = 1500
_LEGEND = (
    ("prompt", "builds a prompt"), ("gen", "generates"), ("select", "chooses or scores"), ("host", "code of yours"),
    ("read", "reads a variable"), ("fork", "forks"), ("call", "calls a function"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Arrow:
    """A value on its way. end: where it arrives; from_side: -1 at the left edge, 1 at the right one, 0 from above."""

    source: Box
    target: Box
    end: tuple[float, float]
    side: int
    kind: str


def graphs(found: Explanation) -> str:
    """The drawings of all functions, with their title and legend."""
    functions = found.module.functions.values()
    drawn = [_function(found, number, function) for number, function in enumerate(functions)]
    told = legend(_LEGEND, before="thick: a prompt goes on; thin: a value is used", kind="legend graph")
    return f"<h2>The graph of the IR</h2>{told}{''.join(drawn)}"


def _function(found: Explanation, number: int, function: Function) -> str:
    num_ops = sum(1 for _ in function.body.walk())
    name = escape(printable(function.name))
    title = f'<summary id="graph-{number}">{name}<span class="dim"> {num_ops:,} ops</span></summary>'
    if num_ops > _MOST_OPS:
        return f'<details><summary id="graph-{number}">{name}: {num_ops:,} ops, not drawn</summary></details>'
    costs = {line_key(line.kind, line.name, line.span): line.costs for line in found.lines}
    boxes = boxes_of(function, lambda op: _told(op, costs))
    width, height = place(boxes, _MARGIN, _MARGIN)
    return (
        f'<details open="open">{title}<div class="scroll tall" tabindex="0" role="region" aria-label="graph of {name}">'
        f"{_Drawing(found, number, function, boxes).svg(width + 2 * _MARGIN, height + 2 * _MARGIN)}</div></details>"
    )


class _Drawing:
    """The drawing of a function whose boxes have their places."""

    def __init__(self, found: Explanation, number: int, function: Function, boxes: Sequence[Box]) -> None:
        self._number = number
        self._function = function
        self._boxes = [box for each in boxes for box in each.walk()]
        self._callees = {name: number for number, name in enumerate(found.module.functions)}
        self._arrows = list(_arrows(boxes))
        self._touching: dict[int, list[int]] = defaultdict(list)
        for index, arrow in enumerate(self._arrows):
            for box in (arrow.source, arrow.target):
                self._touching[id(box)].append(index)

    def svg(self, width: float, height: float) -> str:
        """The whole drawing."""
        name = escape(printable(self._function.name))
        frames = "".join(map(_frame, (box for box in self._boxes if box.parts)))
        arrows = "".join(self._arrow(index, arrow) for index, arrow in enumerate(self._arrows))
        boxes = "".join(map(self._box, self._boxes))
        about = (
            f"{len(self._boxes)} boxes from top to bottom, {len(self._arrows)} arrows; the same as the listing below"
        )
        labels = f"graph-title-{self._number} graph-about-{self._number}"
        return (
            f'<svg class="graph" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'role="group" aria-labelledby="{labels}">'
            f'<title id="graph-title-{self._number}">The IR of {name} as a graph</title>'
            f'<desc id="graph-about-{self._number}">{about}</desc>{frames}{arrows}{boxes}</svg>'
        )

    def _arrow(self, index: int, arrow: _Arrow) -> str:
        return f'<path id="arrow-{self._number}-{index}" class="arrow {arrow.kind}" d="{_path(arrow)}"/>'

    def _box(self, box: Box) -> str:
        """A box with its texts; of one with regions only the head, for the rest stands around other boxes."""
        height = HEAD if box.parts else box.height
        kind = "select" if box.kind == "score" else box.kind
        shape = _rectangle(kind, box, height)
        texts = "".join(_text(box, number, row) for number, row in enumerate(box.rows))
        hot = "".join(f'<use class="hot" href="#arrow-{self._number}-{index}"/>' for index in self._touching[id(box)])
        title = escape(printable("\n".join(box.title[:12])))
        inner = f'<g class="node" tabindex="0"><title>{title}</title>{hot}{shape}{texts}</g>'
        callee = box.ops[0].attrs.get("callee") if box.kind == "call" else None
        return inner if callee not in self._callees else f'<a href="#graph-{self._callees[callee]}">{inner}</a>'


def _told(op: Op, known: Mapping[Hashable, Costs]) -> str:
    """What the prediction says of a call."""
    costs = known.get(line_key(op.name.removeprefix("lm."), op.attrs.get("name"), op.span))
    if costs is None:
        return ""
    calls = "1 call" if costs.calls == 1 else f"{costs.calls:,} calls"
    return f"{calls}, {costs.prefill:,} prefill, {costs.decode:,} decode"


def _frame(box: Box) -> str:
    """What stands around the regions of a box."""
    return _rectangle("frame", box, box.height) + "".join(_part_frame(part) for part in box.parts if part.label)


def _part_frame(part: Part) -> str:
    label = f'<text class="dim" x="{part.x + PADDING:.1f}" y="{part.y + 15:.1f}">{part.label}</text>'
    return _rectangle("frame", part, part.height) + label


def _rectangle(kind: str, at: Box | Part, height: float) -> str:
    return f'<rect class="{kind}" x="{at.x:.1f}" y="{at.y:.1f}" width="{at.width:.1f}" height="{height:.1f}" rx="5"/>'


def _text(box: Box, number: int, row: Row) -> str:
    kind = ' class="dim"' if row.is_dim else ""
    x, y = box.x + PADDING + 2, _row_y(box, number) + 4
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}">{escape(printable(row.text))}</text>'


def _row_y(box: Box, number: int) -> float:
    """The middle of a row."""
    height = HEAD if box.parts else box.height
    return box.y + (height - len(box.rows) * ROW_HEIGHT) / 2 + (number + 0.5) * ROW_HEIGHT


def _arrows(boxes: Sequence[Box]) -> Iterator[_Arrow]:
    """What goes from box to box: prompts from above, other values to the row that uses them, and what loops carry."""
    owners = {value: box for each in boxes for box in each.walk() for value in (*box.defines, *box.aliases)}
    yield from _arrows_to(boxes, owners, {})


def _arrows_to(boxes: Sequence[Box], owners: dict[Value, Box], last: dict[Value, Box]) -> Iterator[_Arrow]:
    """The arrows that end in boxes of a region, or in it. last: where each state was used last; gets what these do.

    Each region of a box begins with what stands before the box; behind it a state comes from the box as a whole.
    """
    for box in boxes:
        if box.chain is not None and box.chain in owners:
            yield _from_above(owners[box.chain], box, "chain")
        for number, row in enumerate(box.rows):
            for value in row.uses:
                source = last.get(value, owners.get(value))
                if source is not None and source is not box:
                    yield _to_row(source, box, number, _kind(value))
        yield from _carried(box, owners)
        used: set[Value] = set()
        for part in box.parts:
            inside = dict(last)
            yield from _arrows_to(part.boxes, owners, inside)
            used |= {value for value, used_in in inside.items() if last.get(value) is not used_in}
        used |= {value for op in box.ops if not box.parts for value in op.operands if is_place(value)}
        last.update(dict.fromkeys(used, box))


def _carried(box: Box, owners: dict[Value, Box]) -> Iterator[_Arrow]:
    """From what a loop begins with to the arguments of its body."""
    op = box.ops[0] if box.ops else None
    if op is None or op.name not in ("flow.for", "flow.while"):
        return
    given = op.operands[1:] if op.name == "flow.for" else op.operands
    arguments = op.regions[0].args[1:] if op.name == "flow.for" else op.regions[0].args
    for value, argument in zip(given, arguments, strict=False):
        if value in owners and argument in owners:
            yield _from_above(owners[value], owners[argument], _kind(value))


def _kind(value: Value) -> str:
    return "chain" if str(value.type) in ("prompt", "cell") else "value"


def _from_above(source: Box, target: Box, kind: str) -> _Arrow:
    return _Arrow(source, target, (_out_of(target), target.y), 0, kind)


def _to_row(source: Box, target: Box, number: int, kind: str) -> _Arrow:
    """To the side of the row that is nearer to the source; from above where the source stands above."""
    middle = _out_of(source)
    if target.x <= middle <= target.right:
        return _Arrow(source, target, (middle, target.y), 0, kind)
    side = -1 if middle < target.x else 1
    return _Arrow(source, target, (target.x if side < 0 else target.right, _row_y(target, number)), side, kind)


def _out_of(box: Box) -> float:
    """The x at which arrows leave a box: its middle, of a wide one nearer to its beginning."""
    return box.x + (min(box.width / 2, 80.0) if box.parts else box.width / 2)


def _path(arrow: _Arrow) -> str:
    """A curve from the lower edge of the source, and the arrow's head."""
    x, y = _out_of(arrow.source), arrow.source.bottom
    end_x, end_y = arrow.end
    if arrow.side:
        reach = arrow.side * min(_BEND * 2, abs(x - end_x))
        bent = f"C{x:.1f} {y + _BEND:.1f} {x:.1f} {end_y:.1f} {end_x + reach:.1f} {end_y:.1f}"
        bent += f"L{end_x:.1f} {end_y:.1f}"
        back = end_x + arrow.side * 5
        head = f"M{back:.1f} {end_y - 4:.1f}L{end_x:.1f} {end_y:.1f}L{back:.1f} {end_y + 4:.1f}"
    else:
        bend = max(_BEND, min(40.0, (end_y - y) / 2))
        bent = f"C{x:.1f} {y + bend:.1f} {end_x:.1f} {end_y - bend:.1f} {end_x:.1f} {end_y:.1f}"
        head = f"M{end_x - 4:.1f} {end_y - 5:.1f}L{end_x:.1f} {end_y:.1f}L{end_x + 4:.1f} {end_y - 5:.1f}"
    return f"M{x:.1f} {y:.1f}{bent}{head}"
