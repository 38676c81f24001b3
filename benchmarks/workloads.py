"""What the compiler's passes save: the SGLang paper's workloads with all passes, without each of them, and without any.

`python -m benchmarks.workloads [--quick] [--json FILE] [--size tiny|small|0.6b] [--only NAME]`. All configurations of a
workload run on one engine in one process, in turn, each from an empty cache. For each: prompt tokens computed, the
bound given by the prefix tree of all requests, calls that the engine served, and wall time. Tokens do not depend on the
weights, so the small random checkpoint shows them as well as a large one.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ramify as rf
import torch
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir
from ramify.compiler.pipeline import PIPELINE
from ramify.runtime.request import Done, EngineRequest, Event

from .checkpoint import random_checkpoint
from .prefix_bound import Served, prefill_bound, prefill_tokens, prompt_tokens
from .report import Bar, machine, median, say, write
from .workload_programs import Workload, workloads

PASSES = tuple(each.name for each in PIPELINE)
DATA = Path(os.environ.get("RAMIFY_DATA", Path(__file__).parents[2] / "shared" / "data"))


@dataclass(frozen=True)
class Measured:
    """One run of a workload. Tokens of prompts: all, computed, and the least that could be computed."""

    config: str
    calls: int
    prompt: int
    computed: int
    bound: int
    generated: int
    seconds: float


def configurations(workload: Workload) -> dict[str, rf.Program]:
    """The program with all passes, without each, without any; and the one with forks by hand, where there is one."""
    program = workload.program
    known = {"all": program, "none": program.options(disable=PASSES)}
    known |= {f"without {name}": program.options(disable=[name]) for name in PASSES}
    return known | ({"by hand": workload.by_hand} if workload.by_hand is not None else {})


@contextmanager
def watched(backend: LocalBackend) -> Iterator[list[Served]]:
    """Collects the requests that the engine serves, in the order they end."""
    served: list[Served] = []
    engine: Any = backend.engine
    submit = engine.submit

    def watch(request: EngineRequest) -> None:
        sink = request.sink

        def note(event: Event) -> None:
            if isinstance(event, Done):
                served.append(Served(tuple(request.token_ids), event.token_ids, event.cached_tokens))
            sink(event)

        request.sink = note
        submit(request)

    engine.submit = watch
    try:
        yield served
    finally:
        engine.submit = submit


def measure(backend: LocalBackend, name: str, program: rf.Program, rows: list[dict[str, Any]]) -> Measured:
    """Run all rows from an empty cache."""
    backend.clear_cache()
    program.compile()
    with watched(backend) as served:
        begun = time.perf_counter()
        runs = program.run_batch(rows, backend=backend)
        seconds = time.perf_counter() - begun
    for run in runs:
        if run.error is not None:
            raise run.error
    return Measured(
        config=name,
        calls=len(served),
        prompt=prompt_tokens(served),
        computed=prefill_tokens(served),
        bound=prefill_bound(served),
        generated=sum(len(each.generated) for each in served),
        seconds=seconds,
    )


def main() -> None:
    """Measure and report."""
    arguments = _arguments()
    about = machine() | {"size": arguments.size}
    checkpoint = model_dir() if arguments.size == "tiny" else random_checkpoint(arguments.size, Path("build"))
    backend = LocalBackend(checkpoint, dtype=torch.float32 if arguments.size == "tiny" else None)
    runs: dict[str, list[list[dict[str, Any]]]] = {}
    chosen = workloads(DATA, scale=1 if arguments.quick else 4)
    for workload in chosen:
        if arguments.only in (None, workload.name):
            runs[workload.name] = [_round(backend, workload) for _ in range(1 if arguments.quick else 3)]
            _print(workload.name, runs[workload.name])
    backend.close()
    write(arguments.json, runs, _bars(runs), about)


def _round(backend: LocalBackend, workload: Workload) -> list[dict[str, Any]]:
    say(f"{workload.name}: {len(workload.rows)} rows")
    return [asdict(measure(backend, *each, workload.rows)) for each in configurations(workload).items()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="what the compiler's passes save on the SGLang paper's workloads")
    parser.add_argument("--quick", action="store_true", help="few rows, one round")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--size", choices=("tiny", "small", "0.6b"), default="tiny", help="the model (tiny: embedded)")
    parser.add_argument("--only", metavar="NAME", help="one workload")
    return parser.parse_args()


def _print(name: str, rounds: list[list[dict[str, Any]]]) -> None:
    print(f"\n{name}: {rounds[0][0]['prompt']} prompt tokens")
    print(f"  {'':22} {'calls':>6} {'computed':>9} {'bound':>7} {'ratio':>6} {'hits':>6} {'seconds':>8}")
    for each in rounds[0]:
        seconds = median(_of(entries, each["config"])["seconds"] for entries in rounds)
        hits = 1 - each["computed"] / each["prompt"]
        ratio = each["computed"] / each["bound"]
        print(
            f"  {each['config']:22} {each['calls']:6} {each['computed']:9} {each['bound']:7} {ratio:6.3f} {hits:6.1%} "
            f"{seconds:8.3f}"
        )


def _of(entries: list[dict[str, Any]], config: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["config"] == config)


def _bars(runs: dict[str, list[list[dict[str, Any]]]]) -> dict[str, Bar]:
    bars: dict[str, Bar] = {}
    for name, rounds in runs.items():
        everything = _of(rounds[0], "all")
        bars[f"{name}: computed / bound"] = Bar(everything["computed"] / everything["bound"], 1.01, "x")
        if any(entry["config"] == "by hand" for entry in rounds[0]):
            ratios = [_of(entries, "all")["seconds"] / _of(entries, "by hand")["seconds"] for entries in rounds]
            bars[f"{name}: time / forks by hand"] = Bar(median(ratios), 1.05, "x")
    return bars


if __name__ == "__main__":
    main()
