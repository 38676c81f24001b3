"""Programs written as plain loops against the same with hand-written forks, on one engine.

`python -m benchmarks.parallelize [--quick] [--json FILE]`: tree of thought, self-consistency, map-reduce and skeleton
of thought on the embedded model, from an empty cache, in turn. The ratio is the median of the rounds, with its
standard error; single runs differ by a tenth.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir

from .report import DATA, Bar, machine, median, paired, say, write
from .workload_programs import workloads
from .workloads import configurations, measure

NAMES = ("tree_of_thought", "self_consistency", "map_reduce", "skeleton_of_thought")
KINDS = ("all", "by hand")
MOST = 1.05


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="plain loops against hand-written forks")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    about = machine()
    backend = LocalBackend(model_dir(), dtype=torch.float32)
    runs: dict[str, dict[str, list[float]]] = {}
    bars: dict[str, Bar] = {}
    for workload in workloads(DATA, 1, NAMES):
        say(f"{workload.name}: {len(workload.rows)} rows")
        programs = configurations(workload)
        seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number in range(6 if arguments.quick else 41):
            measured = {
                kind: measure(backend, kind, programs[kind], workload.rows)
                for kind in KINDS[:: 1 if number % 2 else -1]
            }
            _check(measured)
            if number:  # the first round warms everything up
                for kind in KINDS:
                    seconds[kind].append(measured[kind].seconds)
        ratio, error = paired(seconds["all"], seconds["by hand"])
        print(f"{workload.name:20} {median(seconds['all']):6.2f} s {median(seconds['by hand']):6.2f} s by hand")
        runs[workload.name] = seconds
        bars[f"{workload.name}: time / forks by hand"] = Bar(ratio, MOST, "x", error=error)
    backend.close()
    write(arguments.json, runs, bars, about)


def _check(measured: dict[str, Any]) -> None:
    """Both ask for the same."""
    ours, theirs = (measured[kind] for kind in KINDS)
    assert (ours.calls, ours.prompt) == (theirs.calls, theirs.prompt), "the two do not do the same work"


if __name__ == "__main__":
    main()
