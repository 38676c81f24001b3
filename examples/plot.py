"""A plot as an SVG file, for the pages of the examples."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ramify.ir.errors import UsageError

__all__ = ["plot"]


@contextmanager
def plot(path: Path, width: float, height: float) -> Iterator[Any]:
    """Matplotlib's axes to draw on, of so many inches; when the block has ended, the figure is written to `path`.

    Equal data give equal files. Raises UsageError where matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("a plot needs matplotlib", help="pip install 'ramify[examples]'") from None
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ramify", "font.size": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots()
        figure.savefig(path, format="svg", metadata={"Date": None})
