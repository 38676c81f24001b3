"""How a step grows with branches, as a plot (SVG): its time beside distinct tokens and those of all contexts."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2
from typing import NamedTuple

from .drawing import document, key

_LEFT, _TOP, _WIDTH, _HEIGHT = 76, 92, 620, 300
_LIGHT = """
.shared { fill: #3f8fd2; } .unshared { fill: #8a5cc7; } .distinct { fill: #4f9a5b; } .summed { fill: #c2410c; }
path.line { fill: none; stroke-width: 2; } path.shared { stroke: #3f8fd2; } path.unshared { stroke: #8a5cc7; }
path.distinct { stroke: #4f9a5b; } path.summed { stroke: #c2410c; } path.tokens { stroke-dasharray: 5 4; }
"""
_DARK = (
    ".unshared { fill: #b08be0; } .distinct { fill: #7db884; } .summed { fill: #ff9a5c; } "
    "path.unshared { stroke: #b08be0; } path.distinct { stroke: #7db884; } path.summed { stroke: #ff9a5c; } "
)


class _Line(NamedTuple):
    """values: by the number of branches, which is 1 at first."""

    kind: str
    name: str
    unit: str
    values: dict[int, float]

    def told(self) -> str:
        """The name, and what the line begins and ends with."""
        first, *_, last = self.values.values()
        digits = 1 if self.unit else 0
        return f"{self.name}: {first:,.{digits}f} to {last:,.{digits}f}{self.unit}"


def plot(found: Mapping[str, Mapping[str, float | None]], prefix: int) -> str:
    """Lines over the number of branches, both axes logarithmic: what one branch has is 1, but for the step where
    nothing is shared, which is in parts of the same as the step where all is.

    found: the figures of each number of branches, of which there are two at least, as `growth.branches` gives them.
    prefix: tokens that the branches have in common.
    """
    steps = _line(found, "shared", "a step", " ms"), _line(found, "unshared", "nothing shared", " ms")
    tokens = _line(found, "distinct", "distinct tokens", ""), _line(found, "summed", "of all contexts", "")
    base = steps[0].values[1]
    drawn = [(line, base) for line in steps if len(line.values) > 1]
    drawn += [(line, line.values[1]) for line in tokens]
    counts = [int(count) for count in found]
    most = max(value / one for line, one in drawn for value in line.values.values())
    axes = _Axes(max(counts), 4 ** ceil(log2(most) / 2))
    lines = "".join(_path(line, one, axes) for line, one in drawn)
    width, height = _LEFT + _WIDTH + 24, _TOP + _HEIGHT + 52
    head = f'<text x="24" y="20">A decode step over a prefix of {prefix:,} tokens, one branch = 1</text>'
    keys = _keys([line for line, _ in drawn])
    return document(
        width,
        height,
        title="How a step grows with branches",
        about="; ".join(line.told() for line, _ in drawn) + f"; from 1 to {max(counts)} branches",
        light=_LIGHT,
        dark=_DARK,
        body=f"{head}{keys}{axes.drawn(counts)}{lines}",
    )


class _Axes(NamedTuple):
    """The number of branches to the right and how many times as much upwards, both from 1 on."""

    most_branches: int
    most: float

    def x(self, count: int) -> float:
        return _LEFT + _WIDTH * log2(count) / log2(self.most_branches)

    def y(self, ratio: float) -> float:
        return _TOP + _HEIGHT * (1 - log2(ratio) / log2(self.most))

    def drawn(self, counts: list[int]) -> str:
        """A rule for each power of four upwards, and the numbers of branches."""
        ratios = [4**power for power in range(round(log2(self.most) / 2) + 1)]
        rules = "".join(f"M{_LEFT} {self.y(ratio):.1f}H{_LEFT + _WIDTH}" for ratio in ratios)
        bottom = _TOP + _HEIGHT
        parts = [f'<path class="rule" d="{rules}"/>']
        parts += [
            f'<text class="dim" x="{_LEFT - 10}" y="{self.y(ratio) + 4:.1f}" text-anchor="end">×{ratio}</text>'
            for ratio in ratios
        ]
        parts += [
            f'<text class="dim" x="{self.x(count):.1f}" y="{bottom + 20}" text-anchor="middle">{count}</text>'
            for count in counts
        ]
        middle = _LEFT + _WIDTH / 2
        return "".join(parts) + f'<text class="dim" x="{middle}" y="{bottom + 40}" text-anchor="middle">branches</text>'


def _line(found: Mapping[str, Mapping[str, float | None]], kind: str, name: str, unit: str) -> _Line:
    """What was measured of a kind."""
    values = {int(count): value for count, figures in found.items() if (value := figures[kind]) is not None}
    return _Line(kind, name, unit, values)


def _keys(lines: list[_Line]) -> str:
    """Two to a row."""
    rows = [lines[start : start + 2] for start in range(0, len(lines), 2)]
    return "".join(key(24, 32 + 20 * n, [(line.kind, line.told()) for line in row])[0] for n, row in enumerate(rows))


def _path(line: _Line, one: float, axes: _Axes) -> str:
    """The line and its points. one: what is 1."""
    places = [(axes.x(count), axes.y(value / one)) for count, value in line.values.items()]
    way = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    tokens = "" if line.unit else " tokens"
    points = "".join(f'<circle class="{line.kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places)
    return f'<path class="line {line.kind}{tokens}" d="M{way}"/>{points}'
