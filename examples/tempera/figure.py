"""Draws the curves of training runs: held-out queries that are right, over the edits learnt from, as SVG."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from ramify.examples.plot import plot
from ramify.ir.errors import UsageError

from .training import CURVE, read_curve

__all__ = ["draw"]


def draw(runs: Path, path: Path) -> None:
    """Write the picture of all seeds' runs in a folder. Raises UsageError where there is none, or no matplotlib."""
    curves = [read_curve(file.parent) for file in sorted(runs.glob(f"seed-*/{CURVE}"))]
    if not curves:
        raise UsageError(f"{runs} holds no training run", help="python -m ramify.examples.tempera train makes one")
    steps, means, errors = held_out(curves)
    with plot(path, 5.5, 3.2) as axes:
        axes.errorbar(steps, means, yerr=errors, marker="o", capsize=3, label="learnt editor")
        for name, style in (("unedited", "--"), ("random", ":")):
            level = 100 * statistics.fmean(curve[0][name] for curve in curves)
            axes.axhline(level, color="grey", linestyle=style, label=name if name == "unedited" else "random edits")
        axes.set(xlabel="edits learnt from", ylabel="held-out queries right, %")
        axes.set_title(f"mean and standard error of {len(curves)} seeds")
        axes.grid(alpha=0.3)
        axes.legend()


def held_out(curves: Sequence[Sequence[dict[str, float]]]) -> tuple[list[int], list[float], list[float]]:
    """The edits at which all runs were looked at, and the mean and standard error of what was right there, in %."""
    looked_at = [[line for line in curve if "held_out" in line] for curve in curves]
    found = [{int(line["env_steps"]): 100 * line["held_out"] for line in lines} for lines in looked_at]
    steps = sorted(set.intersection(*(set(each) for each in found)))
    values = [[each[step] for each in found] for step in steps]
    errors = [statistics.stdev(each) / math.sqrt(len(each)) if len(each) > 1 else 0.0 for each in values]
    return steps, [statistics.fmean(each) for each in values], errors
