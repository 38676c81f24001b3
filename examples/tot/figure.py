"""Draws recall over the cutoff, a line for each system, as SVG."""

from pathlib import Path

from ramify.ir.errors import UsageError

from .evaluate import Report

__all__ = ["draw"]

CUTOFFS = (1, 5, 10, 20, 100)


def draw(report: Report, path: Path) -> None:
    """Write the picture. Raises UsageError where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        raise UsageError("a plot needs matplotlib", help="pip install 'ramify[examples]'") from None
    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "ramify", "font.size": 9}):
        figure, axes = pyplot.subplots(figsize=(5.5, 3.2))
        for name, measured in report.systems.items():
            axes.plot(range(len(CUTOFFS)), [100 * measured[f"R@{k}"] for k in CUTOFFS], marker="o", label=name)
        axes.set_xticks(range(len(CUTOFFS)), [str(k) for k in CUTOFFS])
        axes.set_xlabel("books looked at")
        axes.set_ylabel("found, % of queries")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
        pyplot.close(figure)
