"""How far a batch is: counts of its rows, shown on stderr: as a bar on a terminal, else as a line now and then.

Nothing is ever written to stdout, so that what a script prints can go into a pipe.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from ..runtime.context import Usage
from .run import Run

_LINE_SECONDS = 10.0
_BAR_WIDTH = 24

Progress = bool | Callable[[int, int | None], None]
Show = Callable[[], None]


@dataclass(slots=True)
class Tally:
    """What the rows of a batch have come to. total: how many there are, if that is known.

    done and failed count rows that an earlier run has finished, too; `earlier` is how many those are. usage: of the
    rows that were run now; its wall_ms is the time since the beginning.
    """

    total: int | None
    done: int = 0
    failed: int = 0
    earlier: int = field(init=False)
    usage: Usage = field(default_factory=Usage)
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.earlier = self.done

    def add(self, run: Run) -> None:
        """Count a row that has ended."""
        self.done += 1
        self.failed += run.error is not None
        self.usage.add(run.usage)
        self.usage.wall_ms = (time.perf_counter() - self.started) * 1000

    def rows(self) -> str:
        """How many rows are done, and how many of them failed."""
        of = "" if self.total in (None, self.done) else f"/{self.total:,}"
        return f"{self.done:,}{of} {'row' if (self.total or self.done) == 1 else 'rows'}, {self.failed:,} failed"

    def line(self) -> str:
        """All that is known in one line: rows, failures, rows and tokens per second, cache hit share, time left."""
        seconds = max(time.perf_counter() - self.started, 1e-6)
        ended = self.done - self.earlier
        if self.earlier and not ended:
            return f"{self.rows()}, {self.earlier:,} of them earlier"
        parts = [
            self.rows(),
            f"{_rate(ended / seconds)} rows/s",
            f"{_rate(self.usage.generated_tokens / seconds)} tokens/s",
        ]
        if self.usage.prompt_tokens:
            parts.append(f"{self.usage.cached_tokens / self.usage.prompt_tokens:.0%} cached")
        if self.total is not None and ended and self.done < self.total:
            parts.append(f"{duration((self.total - self.done) * seconds / ended)} left")
        return ", ".join(parts)


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def duration(seconds: float) -> str:
    """A time for people: "45 s", "12:30" (minutes) or "3:05:00" (hours)."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def shown(progress: Progress, tally: Tally, *, ends: bool = True) -> Iterator[Show]:
    """A function to call after each row.

    progress: the user's own function of done and total, or whether to show anything. ends: whether the last line stays.
    """
    if callable(progress):
        tell = progress
        yield lambda: tell(tally.done, tally.total)
    elif not progress:
        yield _nothing
    else:
        with _bar(tally) if sys.stderr.isatty() else nullcontext(_Lines(tally)) as show:
            yield show
        if ends:
            print(tally.line(), file=sys.stderr, flush=True)


def _nothing() -> None:
    pass


class _Lines:
    """A line every ten seconds."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._told = tally.started

    def __call__(self) -> None:
        now = time.perf_counter()
        if now - self._told >= _LINE_SECONDS:
            self._told = now
            print(self._tally.line(), file=sys.stderr, flush=True)


@contextmanager
def _bar(tally: Tally) -> Iterator[Show]:
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stderr)

    def picture() -> Table:
        line = tally.line()
        grid = Table.grid(padding=(0, 1))
        width = max(4, min(_BAR_WIDTH, console.width - len(line) - 1))
        bar = ProgressBar(total=tally.total, completed=tally.done, width=width)
        grid.add_row(bar, Text(line, no_wrap=True, overflow="ellipsis"))
        return grid

    # What is printed meanwhile goes above the bar, but never from a pipe to the terminal.
    out = sys.stdout.isatty()
    with Live(console=console, get_renderable=picture, refresh_per_second=5, transient=True, redirect_stdout=out):
        yield _nothing  # the picture looks at the tally by itself
