"""A benchmark in sections that must end in time: what one has found is kept whatever becomes of the others.

The JSON is written after every section. One that raises leaves its traceback and the rest goes on. One that takes too
long, or after which the device takes no work any more, is given up with the whole process, and a fresh one goes on
behind it: no thread can be stopped from outside, and a CUDA context does not recover from a fault.
"""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .report import Bar, save, say

Figures = dict[str, Any]
# With less time than this left, no section is begun.
_LEAST_SECONDS = 5.0


@dataclass(frozen=True)
class Section:
    """A part of a benchmark, and how long it may take."""

    run: Callable[[], Figures]
    limit_seconds: float


class Journal:
    """What was found so far, in a file with the bars that follow from it. is_resumed: what the file has is done."""

    def __init__(
        self, path: Path, about: Figures, bars: Callable[[dict[str, Figures]], dict[str, Bar]], *, is_resumed: bool
    ) -> None:
        self.path = path
        self.about = about
        self.runs: dict[str, Figures] = {}
        self._bars = bars
        if is_resumed:
            content = json.loads(path.read_text())
            self.runs, self.about = content["runs"], content["machine"]

    def note(self, name: str, figures: Figures, seconds: float) -> None:
        """Adds what a section has found, and writes all."""
        self.runs[name] = figures | {"seconds": round(seconds, 2)}
        save(self.path, self.runs, self._bars(self.runs), self.about)


def run_sections(
    sections: Mapping[str, Section],
    journal: Journal,
    *,
    ends_at: float,
    restart: Callable[[], None],
    is_usable: Callable[[], bool],
) -> None:
    """Runs what the journal does not have yet. ends_at: a moment of time.time().

    restart: makes a fresh process that goes on; called from another thread where a section takes too long. is_usable:
    whether the device still works, asked after a failure.
    """
    for name, section in sections.items():
        if name in journal.runs:
            continue
        left = ends_at - time.time()
        if left < _LEAST_SECONDS:
            journal.note(name, {"skipped": "no time was left"}, 0.0)
            continue
        say(f"{left:4.0f} s left: {name}")
        failed = _run(name, section, journal, min(section.limit_seconds, left), restart)
        if failed and not is_usable():
            restart()
            return


def _run(name: str, section: Section, journal: Journal, limit: float, restart: Callable[[], None]) -> bool:
    """Runs one section; returns whether it failed."""
    begun = time.perf_counter()

    def give_up() -> None:
        journal.note(name, {"error": f"given up after {limit:.0f} s"}, limit)
        say(f"{name}: given up after {limit:.0f} s")
        restart()

    timer = threading.Timer(limit, give_up)
    timer.daemon = True
    timer.start()
    try:
        figures = section.run()
    except Exception as error:
        figures = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        say(traceback.format_exc())
    finally:
        timer.cancel()
    journal.note(name, figures, time.perf_counter() - begun)
    return "error" in figures
