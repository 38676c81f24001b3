"""How hit rate and throughput scale with replicas behind the router, beside round-robin and least-loaded: a simulation.

`python -m benchmarks.router [--quick] [--json FILE] [--report FILE.md]`. Router and prefix trees are the real ones
(runtime/routing.py, runtime/known_cache.py); the requests are those of the workloads (router_trace.py); engines only
count (router_simulation.py), with what steps take measured by benchmarks.engine. The work grows with the replicas: a
tenant with all workloads and prompts of its own for each four. Nothing depends on the machine, but how long it takes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from .report import DATA, Bar, machine, say, write
from .router_plot import plot
from .router_simulation import Engine, Outcome, Row, Simulation, copies, policy
from .router_trace import record
from .workload_programs import workloads

REPLICAS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
POLICIES = ("prefix", "least-loaded", "round-robin")
# A model of Qwen3-0.6B's shape on two cores (docs/performance.md): 42 ms a step of one sequence, 166 of 32; 1,024
# tokens of a prompt in 2,726 ms.
ENGINE = Engine(step=0.038, decode=0.004, prefill=0.00266, chunk=256, kv_tokens=16_384)
# Rows that run at a time, for each replica.
IN_FLIGHT = 16
_REPLICAS_OF_A_TENANT = 4
# More than any token id of the embedded model.
_VOCAB = 1 << 17
_BARRED = 8


def main() -> None:
    """Simulate and report."""
    arguments = _arguments()
    about = machine()
    rows = record(workloads(DATA, 4))
    say(f"{len(rows)} rows with {sum(map(len, rows)):,} requests recorded")
    runs: dict[str, dict[str, Any]] = {}
    print(f"{'replicas':>8} {'policy':14} {'hit rate':>9} {'of one':>7} {'imbalance':>9} {'requests/s':>11}")
    for replicas in REPLICAS[:4] if arguments.quick else REPLICAS:
        runs[str(replicas)] = scale(rows, replicas)
        _print(replicas, runs[str(replicas)])
    write(arguments.json, runs, _bars(runs), about)
    if arguments.report is not None:
        _put_report(Path(arguments.report), runs)


def scale(rows: list[Row], replicas: int) -> dict[str, Any]:
    """Each policy on so many replicas, and one engine that has the memory of all, by name."""
    work = copies(rows, max(replicas // _REPLICAS_OF_A_TENANT, 1), _VOCAB, seed=1)
    whole = replace(ENGINE, kv_tokens=ENGINE.kv_tokens * replicas)
    cases = {name: (name, replicas, ENGINE) for name in POLICIES} | {"one engine": ("prefix", 1, whole)}
    return {
        name: _figures(Simulation(work, count, engine, policy(kind, count, engine), IN_FLIGHT * replicas).run())
        for name, (kind, count, engine) in cases.items()
    }


def _figures(found: Outcome) -> dict[str, Any]:
    return {
        "hit_rate": found.hit_rate,
        "imbalance": found.imbalance,
        "requests": found.requests,
        "generated": found.generated,
        "seconds": found.seconds,
        "requests_per_second": found.requests / found.seconds,
        "hit_rates": {name: found.cached[name] / prompt for name, prompt in found.prompt.items()},
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="how hit rate and throughput scale with replicas (simulated)")
    parser.add_argument("--quick", action="store_true", help="at most eight replicas")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--report", metavar="FILE.md", help="put a table and a plot into this page")
    return parser.parse_args()


def _print(replicas: int, found: dict[str, Any]) -> None:
    for name, each in found.items():
        ratio = each["hit_rate"] / found["one engine"]["hit_rate"]
        print(
            f"{replicas:8} {name:14} {each['hit_rate']:9.1%} {ratio:7.1%} {each['imbalance']:9.2f} "
            f"{each['requests_per_second']:11.1f}",
            flush=True,
        )


def _bars(runs: dict[str, dict[str, Any]]) -> dict[str, Bar]:
    found = runs[str(_BARRED)]
    ratio = found["prefix"]["hit_rate"] / found["one engine"]["hit_rate"]
    return {
        f"{_BARRED} replicas: hit rate / one engine's": Bar(ratio, 0.95, "x", at_most=False),
        f"{_BARRED} replicas: imbalance": Bar(found["prefix"]["imbalance"], 1.2, "x"),
    }


def _put_report(page: Path, runs: dict[str, dict[str, Any]]) -> None:
    """Write the plot beside the page, and the table and the plot's link between the page's marks."""
    drawn = page.parent / "scaling.svg"
    drawn.write_text(plot(runs), encoding="utf-8")
    begin, end = "<!-- written by benchmarks.router -->", "<!-- /benchmarks.router -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    link = f"![hit rate and throughput by the number of replicas]({drawn.name})"
    page.write_text(f"{before}{begin}\n{table(runs)}\n\n{link}\n{end}{after}", encoding="utf-8")


def table(runs: dict[str, dict[str, Any]]) -> str:
    """A row for each number of replicas."""
    lines = [
        "| replicas | one engine, hit rate | router | least-loaded | round-robin | imbalance | least-loaded | "
        "round-robin | requests/s | least-loaded | round-robin |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for replicas, found in runs.items():
        each = [found[name] for name in POLICIES]
        cells = [
            replicas,
            f"{found['one engine']['hit_rate']:.1%}",
            *(f"{one['hit_rate']:.1%}" for one in each),
            *(f"{one['imbalance']:.2f}" for one in each),
            *(f"{one['requests_per_second']:,.1f}" for one in each),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
