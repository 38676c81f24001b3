"""What all benchmarks share: the machine's description, medians, bars, and the JSON they write."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Real inputs, which are no part of the project.
DATA = Path(os.environ.get("RAMIFY_DATA", Path(__file__).parents[2] / "shared" / "data"))


@dataclass(frozen=True)
class Bar:
    """A figure that was named beforehand. holds: whether it was reached; None when it was not measured.

    error: the figure's standard error, where it is known.
    """

    value: float | None
    bar: float
    unit: str
    at_most: bool = True
    error: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the value is on the right side of the bar."""
        if self.value is None:
            return None
        return self.value <= self.bar if self.at_most else self.value >= self.bar


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, Python, the commit, and how busy the machine is."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": os.getloadavg()[0],
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def median(values: Iterable[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def write(path: str | None, runs: Any, bars: dict[str, Bar], about: dict[str, Any]) -> None:
    """Write the JSON, if a path was given, and print the bars."""
    print_bars(bars)
    if path is not None:
        save(Path(path), runs, bars, about)
        print(f"written to {path}")


def print_bars(bars: dict[str, Bar]) -> None:
    """A line for each bar: the figure, the bar, and whether it holds."""
    for name, bar in bars.items():
        sign = "<=" if bar.at_most else ">="
        value = "not measured" if bar.value is None else f"{bar.value:.4g} {bar.unit}"
        if bar.error is not None:
            value += f" +- {bar.error:.2g}"
        print(f"{name:32} {value:>16}   bar {sign} {bar.bar:g} {bar.unit}   {_verdict(bar)}")


def save(path: Path, runs: Any, bars: dict[str, Bar], about: dict[str, Any]) -> None:
    """Write the JSON; a file that is there is replaced at once, so that there is always a whole one."""
    content = {
        "machine": about,
        "runs": runs,
        "bars": {name: asdict(bar) | {"holds": bar.holds} for name, bar in bars.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)


def _verdict(bar: Bar) -> str:
    return {True: "holds", False: "MISSED", None: ""}[bar.holds]


def worker(command: Sequence[str], *, timeout: float) -> dict[str, Any]:
    """Run a command whose last line of output is a JSON object, and return that. Raises RuntimeError if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def paired(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float | None]:
    """The median of ours over theirs, round by round, and its standard error, unless there is one round only."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    error = 1.25 * statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else None
    return statistics.median(ratios), error


def peer_python(name: str, check: str, *installs: Sequence[str]) -> str | None:
    """A Python in an environment of its own under build/, made on the first use; None when it cannot be had.

    check: code that fails unless all is installed. installs: the arguments of one `pip install` after another.
    """
    folder = Path("build/peers") / name
    python = folder / "bin" / "python"
    if not python.exists():
        say(f"making an environment in {folder}")
        venv.create(folder, with_pip=True)
    if subprocess.run([python, "-c", check], capture_output=True, check=False).returncode == 0:
        return str(python)
    for packages in installs:
        command = [python, "-m", "pip", "install", "--quiet", *packages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            say(f"{' '.join(packages)} cannot be installed, so there is no peer:\n{done.stderr}")
            return None
    return str(python)


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)
