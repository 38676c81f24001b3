"""What programs cost when memory is short: the workloads at 100, 50 and 25 % of the KV that they need.

`python -m benchmarks.memory [--quick] [--json FILE] [--only NAMES]`. Needed is what a run with ample memory has in use
at its end. For each share: prompt tokens computed beside the bound of the prefix tree, with the passes that know the
future, without each of them, and without both (in order of arrival, with LRU alone), and how many of the same requests
Belady's eviction would have missed (belady.py). Engine and programs go in lockstep (lockstep.py), so that every run
gives the same figures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ramify as rf

from .belady import Admission, belady_misses, recorded
from .lockstep import LockstepBackend, one_host_thread
from .prefix_bound import prefill_bound
from .report import DATA, Bar, machine, say, write
from .workload_programs import Workload, workloads
from .workloads import watched

SHARES = (1.0, 0.5, 0.25)
# Which passes each configuration leaves out.
CONFIGS = {
    "planned": (),
    "no lifetimes": ("lifetimes",),
    "no plan": ("plan_prefixes",),
    "lru": ("lifetimes", "plan_prefixes"),
}


@dataclass(frozen=True)
class Measured:
    """One run of a workload in `capacity` tokens of KV. Tokens of prompts: computed, and the least of any cache.

    needed: tokens of KV in use at its end. largest: those of its largest request, which has to fit. belady: what of the
    admitted prompts Belady's eviction would have computed.
    """

    config: str
    share: float
    capacity: int
    needed: int
    largest: int
    computed: int
    bound: int
    belady: int
    evicted: int
    seconds: float


def measure(name: str, program: rf.Program, rows: list[dict[str, Any]], capacity: int, share: float) -> Measured:
    """Run all rows with an engine of its own."""
    backend = LockstepBackend(kv_tokens=capacity)
    scheduler: Any = backend.engine._scheduler
    program.compile()
    with watched(backend) as served, recorded(scheduler) as events, one_host_thread():
        begun = time.perf_counter()
        runs = program.run_batch(rows, backend=backend)
        seconds = time.perf_counter() - begun
    stats = backend.stats()
    backend.close()
    for run in runs:
        if run.error is not None:
            raise run.error
    return Measured(
        config=name,
        share=share,
        capacity=capacity,
        needed=stats.used,
        largest=max(len(event.prompt) + event.room for event in events if isinstance(event, Admission)),
        computed=sum(event.misses for event in events if isinstance(event, Admission)),
        bound=prefill_bound(served),
        belady=belady_misses(events, capacity),
        evicted=stats.evicted_tokens,
        seconds=seconds,
    )


def measure_all(
    workload: Workload, shares: Sequence[float] = SHARES, configs: Collection[str] = tuple(CONFIGS)
) -> list[Measured]:
    """Shares of the memory, each with several configurations."""
    program, rows = workload.program, workload.rows
    ample = measure("ample", program, rows, 1 << 20, 1.0)
    return [
        measure(
            name,
            program.options(disable=CONFIGS[name]),
            rows,
            max(int(share * ample.needed), ample.largest),
            share,
        )
        for share in shares
        for name in configs
    ]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="what programs cost when memory is short")
    parser.add_argument("--quick", action="store_true", help="few rows")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--only", metavar="NAMES", help="some workloads, with commas")
    arguments = parser.parse_args()
    about = machine()
    runs: dict[str, list[Measured]] = {}
    _print_header()
    for workload in workloads(DATA, 1 if arguments.quick else 4, arguments.only and arguments.only.split(",")):
        say(f"{workload.name}: {len(workload.rows)} rows")
        runs[workload.name] = measure_all(workload)
        _print(workload.name, runs[workload.name])
    write(arguments.json, {name: list(map(asdict, each)) for name, each in runs.items()}, _bars(runs), about)


def _print_header() -> None:
    print(f"{'computed / bound':18} {'memory':>7} {'tokens':>7} {'bound':>7}", *(f"{name:>13}" for name in CONFIGS))


def _print(name: str, runs: list[Measured]) -> None:
    for each in _by_share(runs):
        first = each["planned"]
        ratios = [
            f"{measured.computed / measured.bound:5.3f} ({_to_belady(measured):5.3f})" for measured in each.values()
        ]
        print(f"{name:18} {first.share:7.0%} {first.capacity:7} {first.bound:7}", *ratios, flush=True)


def _to_belady(measured: Measured) -> float:
    return measured.computed / measured.belady


def _by_share(runs: list[Measured]) -> list[dict[str, Measured]]:
    """The configurations of each share."""
    shares = dict.fromkeys(measured.share for measured in runs)
    return [{measured.config: measured for measured in runs if measured.share == share} for share in shares]


def _bars(runs: dict[str, list[Measured]]) -> dict[str, Bar]:
    bars: dict[str, Bar] = {}
    for name, measured in runs.items():
        for each in _by_share(measured):
            planned = each["planned"]
            memory = f"{name} at {planned.share:.0%}"
            limit = {1.0: 1.01, 0.25: 1.05}.get(planned.share)
            if limit is not None:
                bars[f"{memory}: computed / bound"] = Bar(planned.computed / planned.bound, limit, "x")
            bars[f"{memory}: computed / Belady"] = Bar(_to_belady(planned), 1.1, "x")
            bars[f"{memory}: computed / LRU"] = Bar(planned.computed / each["lru"].computed, 1.0, "x")
    return bars


if __name__ == "__main__":
    main()
