"""The workloads' figures as a table and a plot (SVG), put between two marks of a page of the docs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from .drawing import document, key
from .report import median
from .workload_store import Runs

_ROW, _LEFT, _PANEL, _GAP = 34, 170, 290, 60
_TOP, _BOTTOM = 62, 16
_MODELS = {
    "tiny": "the embedded model",
    "small": "a small random model",
    "0.6b": "a random model of Qwen3-0.6B's shape",
}
_LIGHT = """
.none { fill: #b9c2cd; } .all { fill: #3f8fd2; } .hand { fill: #7db884; } .best { stroke: #c2410c; stroke-width: 2; }
"""
_DARK = ".none { fill: #56616f; } .hand { fill: #4f8f58; } .best { stroke: #ff9a5c; } "


def entry_of(entries: Sequence[dict[str, Any]], config: str) -> dict[str, Any]:
    """The entry of a configuration; that of another one where it is known to be the same."""
    entry = next(entry for entry in entries if entry["config"] == config)
    return entry_of(entries, entry["same_as"]) if "same_as" in entry else entry


@dataclass(frozen=True)
class Results:
    """All figures. about: machine and settings."""

    runs: Runs
    about: dict[str, Any]

    def seconds(self, workload: str, config: str) -> float:
        """The median over the rounds."""
        return median(entry_of(entries, config)["seconds"] for entries in self.runs[workload])

    def entry(self, workload: str, config: str) -> dict[str, Any]:
        """The first round's, whose tokens are all rounds'."""
        return entry_of(self.runs[workload][0], config)

    def configs(self, workload: str) -> list[str]:
        """The configurations that were looked at."""
        return [entry["config"] for entry in self.runs[workload][0]]

    def is_alike(self, workload: str, config: str) -> bool:
        """Whether it was not run, for it asks for the same as another one."""
        return any("same_as" in entry for entry in self.runs[workload][0] if entry["config"] == config)


def put_report(page: Path, results: Results) -> None:
    """Write the plot beside the page, and the table and the plot's link between the page's marks."""
    name = f"workloads-{results.about['size']}"
    plot_path = page.parent / f"{name}.svg"
    plot_path.write_text(plot(results), encoding="utf-8")
    begin, end = f"<!-- {name}: written by benchmarks.workloads -->", f"<!-- /{name} -->"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    if begin not in text:
        text = f"{text.rstrip()}\n\n{begin}\n{end}\n".lstrip()
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    link = f"![prompt tokens computed, and wall time, of each workload]({plot_path.name})"
    page.write_text(f"{before}{begin}\n{table(results)}\n\n{link}\n{end}{after}", encoding="utf-8")


def table(results: Results) -> str:
    """What was measured on what, a row for each workload, and what it costs to leave out each pass."""
    return "\n\n".join([_about(results), _main_table(results), _pass_table(results)])


def _about(results: Results) -> str:
    about = results.about
    rounds = max((len(each) for each in results.runs.values()), default=0)
    return (
        f"On {_MODELS[about['size']]}, rows `{about['rows']}`, {about['cores']} cores ({about['processor']}), load "
        f"{about['load_before']:.1f} when it began, {str(about['date'])[:10]}, commit {about['commit'] or 'unknown'}. "
        f"Seconds are medians of {rounds} round{'s' if rounds > 1 else ''}. `all` is with all passes, `none` without "
        "any, `least` the size of the prefix tree of all requests."
        + (" The machine was busy with other work: seconds are rough." if about["load_before"] > about["cores"] else "")
    )


def _main_table(results: Results) -> str:
    head = (
        "| | rows | calls | prompt tokens | computed, none | all | least | cached, none | all | most | s, none | all |"
    )
    lines = [head + " by hand |", "|---|" + "---|" * 12]
    for name in results.runs:
        everything, none = results.entry(name, "all"), results.entry(name, "none")
        hand = f"{results.seconds(name, 'by hand'):.2f}" if "by hand" in results.configs(name) else ""
        prompt = everything["prompt"]
        tokens = [prompt, none["computed"], everything["computed"], everything["bound"]]
        shares = [1 - none["computed"] / none["prompt"], *(1 - count / prompt for count in tokens[2:])]
        seconds = [results.seconds(name, "none"), results.seconds(name, "all")]
        cells = [
            *(f"`{name}`", everything["rows"], everything["calls"]),
            *(f"{count:,}" for count in tokens),
            *(f"{share:.1%}" for share in shares),
            *(f"{each:.2f}" for each in seconds),
            hand,
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _pass_table(results: Results) -> str:
    """Wall time without a pass over that with all, and what changes in tokens and calls."""
    configs = [config for name in results.runs for config in results.configs(name) if config.startswith("without ")]
    passes = list(dict.fromkeys(configs))
    if not passes:
        return ""
    names = " | ".join(f"`{config.removeprefix('without ')}`" for config in passes)
    lines = [
        "Without one pass: wall time over that with all, and what more is computed (`=`: asks for the same, not run).",
        "",
        f"| without | {names} |",
        "|---|" + "---|" * len(passes),
    ]
    lines += [f"| `{name}` | {' | '.join(_without(results, name, each) for each in passes)} |" for name in results.runs]
    return "\n".join(lines)


def _without(results: Results, name: str, config: str) -> str:
    if config not in results.configs(name):
        return ""
    if results.is_alike(name, config) and results.entry(name, config) is results.entry(name, "all"):
        return "="
    everything, other = results.entry(name, "all"), results.entry(name, config)
    tokens = other["computed"] - everything["computed"]
    calls = other["calls"] - everything["calls"]
    told = [f"×{results.seconds(name, config) / results.seconds(name, 'all'):.2f}"]
    told += [f"{tokens:+,} tokens"] if tokens else []
    told += [f"{calls:+,} calls"] if calls else []
    ahead = other.get("speculated", 0) - everything.get("speculated", 0)
    told += [f"{ahead:+,} ahead of time"] if ahead else []
    return ", ".join(told)


def plot(results: Results) -> str:
    """Two panels, a row for each workload: prompt tokens computed of all, and wall time over that with all passes."""
    width, height = _LEFT + 2 * _PANEL + _GAP + 40, _TOP + _ROW * len(results.runs) + _BOTTOM
    most = max((_time_ratios(results, name)[0] for name in results.runs), default=1.0)
    most = max(most, *(ratio or 0 for name in results.runs for ratio in _time_ratios(results, name)), 1.2)
    rows = "".join(_plot_row(results, name, _TOP + _ROW * n, most) for n, name in enumerate(results.runs))
    second = _LEFT + _PANEL + _GAP
    one = second + _PANEL / most
    body = (
        f'<text x="{_LEFT}" y="18">prompt tokens computed, of all</text>{_key(_LEFT, ("none", "all"), True)}'
        f'<text x="{second}" y="18">wall time, with all passes = 1</text>{_key(second, ("none", "hand"), False)}'
        f'<path class="rule" d="M{_LEFT} {_TOP - 6}V{height - _BOTTOM}M{one:.1f} {_TOP - 6}V{height - _BOTTOM}"/>{rows}'
    )
    title = "What the compiler's passes save"
    return document(width, height, title=title, about=_described(results), light=_LIGHT, dark=_DARK, body=body)


_NAMES = {"none": "without passes", "all": "with all", "hand": "forks by hand"}


def _key(x: float, kinds: Sequence[str], has_best: bool) -> str:
    shown, x = key(x, 30, [(kind, _NAMES[kind]) for kind in kinds])
    if has_best:
        shown += f'<path class="best" d="M{x + 2} 29v13"/><text class="dim" x="{x + 9}" y="40">least</text>'
    return shown


def _plot_row(results: Results, name: str, y: float, most: float) -> str:
    everything, none = results.entry(name, "all"), results.entry(name, "none")
    prompt = everything["prompt"]
    best = _LEFT + _PANEL * everything["bound"] / prompt
    second = _LEFT + _PANEL + _GAP
    by_none, by_hand = _time_ratios(results, name)
    parts = [
        f'<text x="{_LEFT - 10}" y="{y + 16}" text-anchor="end">{escape(name)}</text>',
        _bar("none", _LEFT, y + 1, none["computed"] / none["prompt"], 1.0, f"{none['computed'] / none['prompt']:.1%}"),
        _bar("all", _LEFT, y + 13, everything["computed"] / prompt, 1.0, f"{everything['computed'] / prompt:.1%}"),
        f'<path class="best" d="M{best:.1f} {y}v25"/>',
        _bar("none", second, y + 1, by_none, most, f"{by_none:.2f}"),
    ]
    if by_hand is not None:
        parts.append(_bar("hand", second, y + 13, by_hand, most, f"{by_hand:.2f}"))
    return "".join(parts)


def _bar(kind: str, x: float, y: float, value: float, most: float, told: str) -> str:
    width = _PANEL * value / most
    return (
        f'<rect class="{kind}" x="{x}" y="{y}" width="{width:.1f}" height="11"/>'
        f'<text class="dim" x="{x + width + 6:.1f}" y="{y + 10}" font-size="10">{told}</text>'
    )


def _time_ratios(results: Results, name: str) -> tuple[float, float | None]:
    """Without passes, and with forks by hand, where there are such, over that with all passes."""
    everything = results.seconds(name, "all")
    by_hand = results.seconds(name, "by hand") / everything if "by hand" in results.configs(name) else None
    return results.seconds(name, "none") / everything, by_hand


def _described(results: Results) -> str:
    told = []
    for name in results.runs:
        everything, none = results.entry(name, "all"), results.entry(name, "none")
        told.append(f"{name}: {everything['computed']:,} tokens computed, {none['computed']:,} without passes")
    return "; ".join(told)
