"""What a tier in host memory saves: programs whose prefixes do not fit the device, one after another, several times.

`python -m benchmarks.tier [--quick] [--json FILE] [--only NAMES]`. All workloads run in three rounds, each in another
order. The device has a quarter of the KV that they take together when nothing is evicted; the host none, half of that
and all of it. For each: prompt tokens computed beside the bound of the prefix tree and beside ample memory, copied out
and copied back; with the passes that know the future, and without them (in order of arrival, with LRU alone). Engine
and programs go in lockstep (lockstep.py), so that every run gives the same figures. They say what is computed and
copied, not how long it takes.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from .lockstep import LockstepBackend, one_host_thread
from .memory import CONFIGS
from .prefix_bound import prefill_bound, prefill_tokens
from .report import DATA, Bar, machine, say, write
from .workload_programs import Workload, workloads
from .workloads import watched

DEVICE_SHARE = 0.25
HOST_SHARES = (0.0, 0.5, 1.0)
NUM_ROUNDS = 3
PASSES = ("planned", "lru")


@dataclass(frozen=True)
class Measured:
    """All rounds of the workloads in `capacity` tokens of KV on the device and `host_capacity` on the host.

    host_share: None is ample memory on the device. used: tokens of KV at the end. computed: tokens of prompts. bound:
    the least of any cache. offloaded, restored: copied out and back.
    """

    passes: str
    host_share: float | None
    capacity: int
    host_capacity: int
    used: int
    computed: int
    bound: int
    evicted: int
    offloaded: int
    restored: int
    seconds: float

    @property
    def ratio(self) -> float:
        """Computed, in parts of the bound."""
        return self.computed / self.bound


def measure(programs: Sequence[Workload], passes: str, *, needed: int, host_share: float | None) -> Measured:
    """Run all rows of all programs in their rounds, with an engine of their own."""
    capacity = 1 << 20 if host_share is None else int(DEVICE_SHARE * needed)
    host_capacity = int((host_share or 0.0) * needed)
    backend = LockstepBackend(kv_tokens=capacity, host_kv_tokens=host_capacity)
    begun = time.perf_counter()
    with watched(backend) as served, one_host_thread():
        for each in _rounds(programs):
            for run in each.program.options(disable=CONFIGS[passes]).run_batch(each.rows, backend=backend):
                if run.error is not None:
                    raise run.error
    stats = backend.stats()
    backend.close()
    return Measured(
        passes=passes,
        host_share=host_share,
        capacity=capacity,
        host_capacity=host_capacity,
        used=stats.used,
        computed=prefill_tokens(served),
        bound=prefill_bound(served),
        evicted=stats.evicted_tokens,
        offloaded=stats.offloaded_tokens,
        restored=stats.restored_tokens,
        seconds=time.perf_counter() - begun,
    )


def _rounds(programs: Sequence[Workload]) -> list[Workload]:
    """The workloads in the order in which they run."""
    rng = random.Random(7)
    return [each for _ in range(NUM_ROUNDS) for each in rng.sample(programs, len(programs))]


def measure_all(programs: Sequence[Workload], passes: Sequence[str] = PASSES) -> list[Measured]:
    """With ample memory, then with less and more on the host; with and without the passes."""
    runs = []
    for name in passes:
        ample = measure(programs, name, needed=0, host_share=None)
        runs += [ample, *(measure(programs, name, needed=ample.used, host_share=share) for share in HOST_SHARES)]
    return runs


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="what a tier in host memory saves")
    parser.add_argument("--quick", action="store_true", help="few rows")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--only", metavar="NAMES", help="some workloads, with commas")
    arguments = parser.parse_args()
    about = machine()
    programs = workloads(DATA, 1 if arguments.quick else 4, arguments.only and arguments.only.split(","))
    say(f"{NUM_ROUNDS} rounds of {len(programs)} workloads, {sum(len(each.rows) for each in programs)} rows")
    runs = measure_all(programs)
    _print(runs)
    write(arguments.json, list(map(asdict, runs)), _bars(runs), about)


def _print(runs: Sequence[Measured]) -> None:
    columns = ("device", "host", "bound", "computed", "/ bound", "evicted", "copied out", "copied back")
    print(f"{'passes':8}", *(f"{column:>11}" for column in columns))
    for each in runs:
        figures = (each.capacity, each.host_capacity, each.bound, each.computed, f"{each.ratio:.3f}", each.evicted)
        print(f"{each.passes:8}", *(f"{figure:>11}" for figure in (*figures, each.offloaded, each.restored)))


def _bars(runs: Sequence[Measured]) -> dict[str, Bar]:
    bars = {}
    for passes in dict.fromkeys(each.passes for each in runs):
        computed = {each.host_share: each.computed for each in runs if each.passes == passes}
        bars[f"{passes}, all on the host: computed / ample memory"] = Bar(computed[1.0] / computed[None], 1.05, "x")
        bars[f"{passes}, half on the host: computed / without"] = Bar(computed[0.5] / computed[0.0], 1.0, "x")
    return bars


if __name__ == "__main__":
    main()
