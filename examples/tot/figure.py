"""Draws recall over the cutoff, a line for each system, as SVG."""

from pathlib import Path

from ramify.examples.plot import plot

from .evaluate import GOLD, Report

__all__ = ["draw"]

CUTOFFS = (1, 5, 10, 20, 100)


def draw(report: Report, path: Path) -> None:
    """Write the picture. Raises UsageError where matplotlib is missing."""
    with plot(path, 5.5, 3.2) as axes:
        for name, measured in report.systems.items():
            found = [100 * measured[f"R@{k}"] for k in CUTOFFS]
            axes.plot(range(len(CUTOFFS)), found, "o--" if name == GOLD else "o-", label=name)
        axes.set_xticks(range(len(CUTOFFS)), [str(k) for k in CUTOFFS])
        axes.set(xlabel="books looked at", ylabel="found, % of queries")
        axes.grid(alpha=0.3)
        axes.legend()
