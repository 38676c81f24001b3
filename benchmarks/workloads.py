"""What the compiler's passes save: the SGLang paper's workloads with all passes, without each of them, and without any.

`python -m benchmarks.workloads [--quick | --brief] [--json FILE [--resume]] [--size tiny|small|0.6b] [--only NAMES]
[--report FILE.md]`. All configurations of a workload run on one engine in one process, in turn, each from an empty
cache. For each: prompt tokens computed, the bound given by the prefix tree of all requests, calls that the engine
served, and wall time. Tokens do not depend on the weights, so the small random checkpoint shows them as well as a large
one. --report puts a table and a plot between two marks of a page (workload_report.py).

--brief is for large models on small machines: few rows, and a pass is left out only where this changes calls, tokens or
what waits for what: as `explain` says, and a run on the embedded model. The JSON is written after each configuration;
--resume goes on from there.
"""

from __future__ import annotations

import argparse
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
from .report import DATA, Bar, machine, median, say, write
from .workload_programs import Workload, brief, workloads
from .workload_report import Results, entry_of, put_report
from .workload_store import Store

PASSES = tuple(each.name for each in PIPELINE)


@dataclass(frozen=True)
class Measured:
    """One run of a workload. Tokens of prompts: all, computed, and the least that could be computed.

    speculated: tokens that were computed in idle time, in case they would be asked for; not among computed.
    """

    config: str
    calls: int
    prompt: int
    computed: int
    bound: int
    generated: int
    seconds: float
    speculated: int = 0


def configurations(workload: Workload) -> dict[str, rf.Program]:
    """The program with all passes, without each, without any; and the one with forks by hand, where there is one."""
    program = workload.program
    known = {"all": program, "none": program.options(disable=PASSES)}
    known |= {f"without {name}": program.options(disable=[name]) for name in PASSES}
    return known | ({"by hand": workload.by_hand} if workload.by_hand is not None else {})


def known_to_be_alike(workload: Workload, embedded: LocalBackend) -> dict[str, str]:
    """Which configurations ask for the same, in the same rounds, as "all" or "none" do, and compute the same tokens.

    What they ask for is predicted, what is computed measured on the embedded model.
    """
    looked_at = {
        name: _behaviour(program, workload.rows, embedded)
        for name, program in configurations(workload).items()
        if name != "by hand"
    }
    return {
        name: next(other for other in ("all", "none") if looked_at[other] == found)
        for name, found in looked_at.items()
        if name not in ("all", "none") and found in (looked_at["all"], looked_at["none"])
    }


def _behaviour(program: rf.Program, rows: list[dict[str, Any]], embedded: LocalBackend) -> tuple[object, ...]:
    found = program.explain(rows, backend=embedded, passes=False)
    if found.stops:
        raise found.stops[0].error
    total, measured = found.total, measure(embedded, "", program, rows)
    predicted = total.calls, total.shared_calls, total.prompt, total.cached, total.decode, found.critical_path
    return *predicted, measured.calls, measured.computed, measured.speculated > 0


def _served(request: EngineRequest, done: Done) -> Served:
    """What a request has cost; the last token of a score is judged, and not computed."""
    prompt, start = tuple(request.token_ids), request.score_from
    if start is None:
        return Served(prompt, done.token_ids, done.cached_tokens)
    return Served(prompt[:-1], (), done.cached_tokens, matchable=start - 1)


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
                served.append(_served(request, event))
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
    before = backend.engine.stats().speculated_tokens
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
        speculated=backend.engine.stats().speculated_tokens - before,
    )


def main() -> None:
    """Measure and report."""
    arguments = _arguments()
    small = arguments.quick or arguments.brief
    settings = {"size": arguments.size, "rows": "brief" if arguments.brief else "quick" if small else "all"}
    store = Store(arguments.json, settings, machine(), resume=arguments.resume)
    checkpoint = model_dir() if arguments.size == "tiny" else random_checkpoint(arguments.size, Path("build"))
    backend = LocalBackend(checkpoint, dtype=torch.float32 if arguments.size == "tiny" else None)
    chosen = workloads(DATA, 1 if small else 4, arguments.only and arguments.only.split(","))
    embedded = LocalBackend(model_dir(), dtype=torch.float32) if arguments.brief else None
    measure(backend, "warm-up", chosen[0].program, chosen[0].rows[:1])
    begun = time.perf_counter()
    for number, workload in enumerate(map(brief, chosen) if arguments.brief else chosen, 1):
        say(f"[{number}/{len(chosen)}] {workload.name}: {len(workload.rows)} rows, {time.perf_counter() - begun:.0f} s")
        alike = {} if embedded is None else known_to_be_alike(workload, embedded)
        for turn in range(1 if small else 3):
            _run_round(backend, workload, store, turn, alike)
        _print(workload.name, store.runs[workload.name])
    for each in filter(None, (backend, embedded)):
        each.close()
    write(arguments.json, store.runs, _bars(store.runs), store.about)
    if arguments.report is not None:
        put_report(Path(arguments.report), Results(store.runs, store.about))


def _run_round(backend: LocalBackend, workload: Workload, store: Store, turn: int, alike: dict[str, str]) -> None:
    for name, program in configurations(workload).items():
        if store.has(workload.name, turn, name):
            continue
        if name in alike:
            found: dict[str, Any] = {"config": name, "same_as": alike[name]}
        else:
            found = asdict(measure(backend, name, program, workload.rows))
            say(f"  {name}: {found['computed']} of {found['prompt']} tokens computed, {found['seconds']:.1f} s")
        store.add(workload.name, turn, found | {"rows": len(workload.rows)})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="what the compiler's passes save on the SGLang paper's workloads")
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument("--quick", action="store_true", help="few rows, one round")
    rows.add_argument("--brief", action="store_true", help="the fewest rows, and only what makes a difference")
    parser.add_argument("--json", metavar="FILE", help="write the figures here, as they come")
    parser.add_argument("--resume", action="store_true", help="go on with what --json has")
    parser.add_argument("--size", choices=("tiny", "small", "0.6b"), default="tiny", help="the model (tiny: embedded)")
    parser.add_argument("--only", metavar="NAMES", help="some of the workloads, with commas between them")
    parser.add_argument("--report", metavar="FILE.md", help="put a table and a plot into this page")
    return parser.parse_args()


def _print(name: str, rounds: list[list[dict[str, Any]]]) -> None:
    print(f"\n{name}: {rounds[0][0]['prompt']} prompt tokens")
    print(f"  {'':22} {'calls':>6} {'computed':>9} {'bound':>7} {'ratio':>6} {'hits':>6} {'best':>6} {'seconds':>8}")
    for each in rounds[0]:
        if "same_as" in each:
            print(f"  {each['config']:22} as {each['same_as']!r}")
            continue
        seconds = median(entry_of(entries, each["config"])["seconds"] for entries in rounds)
        hits, best = 1 - each["computed"] / each["prompt"], 1 - each["bound"] / each["prompt"]
        ratio = each["computed"] / each["bound"]
        print(
            f"  {each['config']:22} {each['calls']:6} {each['computed']:9} {each['bound']:7} {ratio:6.3f} {hits:6.1%} "
            f"{best:6.1%} {seconds:8.3f}"
        )


def _bars(runs: dict[str, list[list[dict[str, Any]]]]) -> dict[str, Bar]:
    bars: dict[str, Bar] = {}
    for name, rounds in runs.items():
        everything = entry_of(rounds[0], "all")
        bars[f"{name}: computed / bound"] = Bar(everything["computed"] / everything["bound"], 1.01, "x")
        if any(entry["config"] == "by hand" for entry in rounds[0]):
            ratios = [entry_of(each, "all")["seconds"] / entry_of(each, "by hand")["seconds"] for each in rounds]
            bars[f"{name}: time / forks by hand"] = Bar(median(ratios), 1.05, "x")
    return bars


if __name__ == "__main__":
    main()
