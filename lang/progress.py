"""Shows on stderr how far a data run is: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINE_SECONDS = 10.0
Show = Callable[[int, int], None]


@contextmanager
def shown_progress(total: int, finished: int, quiet: bool) -> Iterator[Show]:
    """A function to be told how many rows are finished, and how many of them have failed.

    finished: how many were before this run.
    """
    if quiet:
        yield lambda finished, failed: None
    elif sys.stderr.isatty():
        with _bar(total, finished) as show:
            yield show
    else:
        yield _Lines(total, finished)


class _Lines:
    def __init__(self, total: int, finished: int) -> None:
        self._total = total
        self._before = finished
        self._started = self._told = time.monotonic()

    def __call__(self, finished: int, failed: int) -> None:
        now = time.monotonic()
        if now - self._told < _LINE_SECONDS:
            return
        self._told = now
        rate = (finished - self._before) / (now - self._started)
        print(f"{finished}/{self._total} rows, {failed} failed, {rate:.2g} rows/s", file=sys.stderr, flush=True)


@contextmanager
def _bar(total: int, finished: int) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows, {task.fields[failed]} failed"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("rows", total=total, completed=finished, failed=0)
        yield lambda finished, failed: bar.update(task, completed=finished, failed=failed)
