"""Where the boxes of a drawing stand: each below what it comes after, a prompt straight below what it goes on from."""

from __future__ import annotations

from collections.abc import Sequence

from .explain_boxes import Box, Part, cut

CHARACTER = 6.65
ROW_HEIGHT = 17.0
PADDING = 7.0
HEAD = 24.0
_GAP_X, _GAP_Y = 24.0, 24.0
_INSET = 12.0
_ASIDE = 300.0
_MOST_TRIED = 6
_WIDEST = 1100.0
_MIN_WIDTH = 64.0
_ON_CHAIN = ("prompt", "gen", "select", "score", "flow", "argument")
_SLIM = ("read", "argument", "end", "cell")


def place(boxes: Sequence[Box], x: float = 0.0, y: float = 0.0) -> tuple[float, float]:
    """Give all boxes of a region their places, from a corner on; gives the region's width and height."""
    placed: list[Box] = []
    owners = {value: box for box in boxes for value in box.defines}
    for box in boxes:
        _measure(box)
        before = [boxes[number] for number in box.after]
        wanted = _wanted_x(box, before, owners.get(box.chain) if box.chain is not None else None)
        _find_place(box, placed if box.kind == "end" else before, wanted, placed)
        placed.append(box)
    for box in boxes:
        _move(box, x, y)
    return max((box.right for box in boxes), default=x) - x, max((box.bottom for box in boxes), default=y) - y


def _measure(box: Box) -> None:
    for row in box.rows:
        row.text = cut(row.text)
    longest = max(len(row.text) for row in box.rows)
    box.width = max(_MIN_WIDTH, longest * CHARACTER + 2 * PADDING + 4)
    padding = PADDING - 3 if box.kind in _SLIM else PADDING
    box.height = len(box.rows) * ROW_HEIGHT + 2 * padding
    if box.parts:
        _measure_parts(box)


def _measure_parts(box: Box) -> None:
    """Place the parts in their box: those of an `if` side by side, others below one another."""
    side_by_side = len(box.parts) == 2 and box.ops[0].name == "flow.if"
    x, y = _INSET, HEAD + _INSET / 2
    for part in box.parts:
        part.x, part.y = x, y
        _measure_part(part)
        if side_by_side:
            x += part.width + _INSET
        else:
            y += part.height + _INSET
    box.width = max(box.width, max(part.x + part.width for part in box.parts) + _INSET)
    box.height = max(part.y + part.height for part in box.parts) + _INSET


def _measure_part(part: Part) -> None:
    inset, head = (_INSET, HEAD) if part.label else (0.0, _INSET / 2)
    width, height = place(part.boxes, part.x + inset, part.y + head)
    part.width, part.height = width + 2 * inset, height + head + inset


def _find_place(box: Box, before: Sequence[Box], wanted: float, placed: Sequence[Box]) -> None:
    """Move a box to the free place below others that is nearest to where it would like to be."""
    first = max((each.bottom + _GAP_Y for each in before), default=0.0)
    near = [each for each in placed if each.bottom + _GAP_Y > first]
    most = 1 if box.kind == "argument" else _MOST_TRIED
    levels = sorted({first, *(each.bottom + _GAP_Y for each in near)})[:most]
    tried = [(_free_x(box, wanted, level, near), level) for level in levels]
    fitting = [(x, level) for x, level in tried if x + box.width <= max(_WIDEST, wanted + box.width)] or tried[-1:]
    _move(box, *min(fitting, key=lambda found: found[0] - wanted + 1.2 * (found[1] - first)))


def _wanted_x(box: Box, before: Sequence[Box], above: Box | None) -> float:
    """Prompts go on straight below, regions begin where prompts are, other things stand aside of these."""
    last = max(before, key=lambda each: each.bottom, default=None)
    if above is not None:
        if box.kind == "read":
            return above.right + _GAP_X
        return above.x if above.parts else _below(above, box)
    if box.kind == "flow":
        chain = max((each for each in before if each.kind in _ON_CHAIN), key=lambda each: each.bottom, default=None)
        return 0.0 if chain is None or box.width > _WIDEST / 2 else chain.x
    if box.kind in _ON_CHAIN or last is None:
        return 0.0 if box.kind in (*_ON_CHAIN, "end") else _ASIDE
    if last.kind not in _ON_CHAIN or box.kind == "end":
        return last.x if last.parts else _below(last, box)
    return _ASIDE if last.kind in ("flow", "argument") else last.right + _GAP_X


def _below(above: Box, box: Box) -> float:
    return max(0.0, above.x + (above.width - box.width) / 2)


def _free_x(box: Box, wanted: float, y: float, placed: Sequence[Box]) -> float:
    """The first free place on a level, from the wanted one to the right."""
    beside = [each for each in placed if each.y < y + box.height + _GAP_Y and each.bottom + _GAP_Y > y]
    x = wanted
    for each in sorted(beside, key=lambda each: each.x):
        if each.x < x + box.width + _GAP_X and each.right + _GAP_X > x:
            x = each.right + _GAP_X
    return x


def _move(box: Box, x: float, y: float) -> None:
    """Move a box and all in it."""
    for each in box.walk():
        each.x, each.y = each.x + x, each.y + y
        for part in each.parts:
            part.x, part.y = part.x + x, part.y + y
