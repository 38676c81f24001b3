"""The engine beside others on one checkpoint: decoding, prefill, and requests that share a prefix.

`python -m benchmarks.engine [--size 0.6b] [--quick] [--json FILE] [--peers NAME[=PYTHON] ...] [--folder FOLDER]`. Every
engine has a process of its own that stays; in each round all of them do the same case in turn, while the others stand
still, and the medians over the rounds count. Weights are random, decoding is greedy and goes on to the last token that
is asked for. transformers runs in this environment; vLLM's CPU build, OpenVINO GenAI and llama.cpp (vllm, openvino,
llamacpp) in one of their own each, whose Python is named: `--peers transformers vllm=build/peers/vllm/bin/python`. What
is to be installed there is in docs/performance.md. vllm runs eagerly, vllm+compiled as torch.compile makes it, which
takes longer to begin. For OpenVINO and llama.cpp the checkpoint is converted on the first use.

A case is `batch` requests of `shared` common and `own` further random tokens, with `new` tokens generated. A decode
step is the difference between `new` tokens and one, so that prefill is no part of it.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from .checkpoint import SHAPES, random_checkpoint
from .peer import Worker, started
from .report import Bar, machine, median, say, write


@dataclass(frozen=True)
class Case:
    """What one measurement asks of an engine; all in tokens but `batch`."""

    batch: int
    shared: int
    own: int
    new: int


CASES = {
    "decode, batch 1": Case(1, 0, 128, 33),
    "decode, batch 8": Case(8, 0, 128, 33),
    "decode, batch 32": Case(32, 0, 128, 33),
    "prefill of 1,024": Case(1, 0, 1024, 1),
    "32 with 512 shared": Case(32, 512, 64, 32),
}
# What ours may take at most of the best peer's time.
BARS = {
    "decode, batch 1": 0.95,
    "decode, batch 8": 0.8,
    "decode, batch 32": 0.8,
    "prefill of 1,024": 0.8,
    "32 with 512 shared": 0.55,
}


def main() -> None:
    """Measure all cases and report."""
    arguments = _arguments()
    about = machine() | {"size": arguments.size}
    checkpoint = random_checkpoint(arguments.size, Path(arguments.folder))
    rounds = 2 if arguments.quick else 3
    runs: dict[str, dict[str, list[float]]] = {case: {} for case in CASES}
    with ExitStack() as opened:
        engines = ["ramify", *arguments.peers]
        workers = [opened.enter_context(started(engine, "engine", checkpoint)) for engine in engines]
        for number in range(rounds + 1):  # the first is not counted: memory and kernels are made ready
            for case, what in CASES.items():
                for worker in workers:
                    if number == 0:
                        worker.ask(asdict(what) | {"seed": 0})
                        continue
                    seconds = _measure(worker, what, number)
                    say(f"round {number} of {rounds}: {case}, {worker.name}: {seconds:.4g} s")
                    runs[case].setdefault(worker.name, []).append(seconds)
    _print(runs)
    write(arguments.json, runs, _bars(runs), about)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="ramify's engine beside others")
    parser.add_argument("--size", choices=sorted(SHAPES), default="0.6b", help="the shape of the random checkpoint")
    parser.add_argument("--folder", default="build", metavar="FOLDER", help="where the checkpoint is kept")
    parser.add_argument(
        "--peers", nargs="*", default=["transformers"], metavar="NAME[+OPTION][=PYTHON]", help="other engines"
    )
    parser.add_argument("--quick", action="store_true", help="two rounds instead of three")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    return parser.parse_args()


def _measure(worker: Worker, case: Case, seed: int) -> float:
    """Seconds of the case, or of one decode step where nothing is shared and more than one token is asked for."""
    seconds: float = worker.ask(asdict(case) | {"seed": seed})["seconds"]
    if case.shared or case.new == 1:
        return seconds
    first: float = worker.ask(asdict(case) | {"seed": seed, "new": 1})["seconds"]
    return (seconds - first) / (case.new - 1)


def _print(runs: dict[str, dict[str, list[float]]]) -> None:
    names = list(dict.fromkeys(name for of_case in runs.values() for name in of_case))
    print(f"{'milliseconds':20}" + "".join(f"{name:>14}" for name in names))
    for case, of_case in runs.items():
        print(f"{case:20}" + "".join(f"{median(of_case[name]) * 1e3:14.1f}" for name in names))


def _ratio(of_case: dict[str, list[float]]) -> float | None:
    """Our time over the best peer's."""
    peers = [median(of_case[name]) for name in of_case if name != "ramify"]
    return median(of_case["ramify"]) / min(peers) if peers else None


def _bars(runs: dict[str, dict[str, list[float]]]) -> dict[str, Bar]:
    return {case: Bar(_ratio(of_case), BARS[case], "x of the best peer") for case, of_case in runs.items()}


if __name__ == "__main__":
    main()
