"""Hit rate and throughput over the number of replicas, as a plot (SVG) of two panels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log2
from typing import Any

from .drawing import document, key

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 300, 240, 64, 84, 84
_NAMES = {"prefix": "router", "least-loaded": "least-loaded", "round-robin": "round-robin", "one engine": "one engine"}
_COLOURS = {"prefix": "#3f8fd2", "least-loaded": "#c2410c", "round-robin": "#8a5cc7", "one-engine": "#4f9a5b"}
_LIGHT = "path.line { fill: none; stroke-width: 2; }\n" + "".join(
    f".{kind} {{ fill: {colour}; }} path.{kind} {{ stroke: {colour}; }}\n" for kind, colour in _COLOURS.items()
)

Runs = Mapping[str, Mapping[str, Mapping[str, Any]]]


def plot(runs: Runs) -> str:
    """Left the hit rates; right requests a second, in those of one replica, both axes logarithmic.

    runs: by the number of replicas, of which there are two at least and 1 the first, and by policy.
    """
    counts = [int(count) for count in runs]
    most = log2(counts[-1])
    one = runs["1"]["prefix"]["requests_per_second"]

    def speedup(each: Mapping[str, Any]) -> float:
        return log2(max(each["requests_per_second"] / one, 1)) / most

    names = ["prefix", "least-loaded", "round-robin"]
    hits = _panel(_LEFT, runs, [*names, "one engine"], lambda each: each["hit_rate"])
    left = _LEFT + _WIDTH + _GAP
    speeds = _panel(left, runs, names, speedup)
    percents = _rules(_LEFT, [(part / 4, f"{part * 25} %") for part in range(5)])
    times = _rules(left, [(log2(count) / most, f"×{count}") for count in counts])
    keys, _ = key(24, 34, [(name.replace(" ", "-"), shown) for name, shown in _NAMES.items()])
    heads = f'<text x="{_LEFT}" y="72">Hit rate</text><text x="{left}" y="72">Throughput, one replica = 1</text>'
    last = runs[str(counts[-1])]
    told = "; ".join(f"{_NAMES[name]}: hit rate {last[name]['hit_rate']:.0%}" for name in names)
    return document(
        left + _WIDTH + 24,
        _TOP + _HEIGHT + 44,
        title="Hit rate and throughput by replicas",
        about=f"With {counts[-1]} replicas {told}",
        light=_LIGHT,
        dark="",
        body=f"{heads}{keys}{percents}{times}{hits}{speeds}"
        f'<text x="24" y="20">Workloads on 1 to {counts[-1]} simulated replicas</text>',
    )


def _panel(left: float, runs: Runs, names: list[str], height: Callable[[Mapping[str, Any]], float]) -> str:
    """Lines over the number of replicas, and these. height: of a run, from 0 to 1."""
    most = max(log2(int(count)) for count in runs)
    across = {count: left + _WIDTH * log2(int(count)) / most for count in runs}
    parts = [
        f'<text class="dim" x="{x:.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{count}</text>'
        for count, x in across.items()
    ]
    middle = left + _WIDTH / 2
    parts.append(f'<text class="dim" x="{middle}" y="{_TOP + _HEIGHT + 36}" text-anchor="middle">replicas</text>')
    for name in names:
        kind = name.replace(" ", "-")
        places = [(across[count], _TOP + _HEIGHT * (1 - height(found[name]))) for count, found in runs.items()]
        way = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        points = "".join(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
        parts.append(f'<path class="line {kind}" d="M{way}"/>{points}')
    return "".join(parts)


def _rules(left: float, marks: list[tuple[float, str]]) -> str:
    """Lines across, each with what it stands for. marks: their heights, from 0 to 1, and texts."""
    shown = []
    for height, text in marks:
        y = _TOP + _HEIGHT * (1 - height)
        shown.append(f'<path class="rule" d="M{left} {y:.1f}h{_WIDTH}"/>')
        shown.append(f'<text class="dim" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return "".join(shown)
