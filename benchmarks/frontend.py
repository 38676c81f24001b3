"""What a program costs before any model runs: ramify's frontend beside SGLang's, on a backend that does nothing.

`python -m benchmarks.frontend [--quick] [--json FILE] [--peer PYTHON]`. Every case runs in a process of its own,
ramify's and SGLang's in turn, and the medians over the rounds count. SGLang 0.5.23 runs in an environment of its own
(made under build/ unless --peer names one's Python), without its dependencies: see frontend_sglang.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .report import Bar, machine, median, peer_python, say, worker, write

HERE = Path(__file__).parent
PEER = "sglang==0.5.23"
# Case -> its figure, unit and bar; whether SGLang can run it.
CASES: dict[str, tuple[str, str, float | None, bool]] = {
    "one_gen": ("us", "us", 60, True),
    "one_gen_one_core": ("us", "us", 60, True),
    "thread_round_trip": ("us", "us", None, False),
    "batch_row": ("us", "us", None, True),
    "fork_join": ("ms", "ms", 1.5, True),
    "slow_gens": ("s", "s", 1.2, True),
    "threads": ("threads", "threads", 8, True),
    "in_flight": ("mb", "MB", 1000, False),
    "compile_time": ("ms", "ms", 50, False),
}


def main() -> None:
    """Measure all cases and report."""
    arguments = _arguments()
    rounds, repeats = (2, 5) if arguments.quick else (5, 9)
    about = machine()
    check = "import importlib.metadata as m; m.version('sglang')"
    peer = arguments.peer or peer_python("sglang", check, ["--no-deps", PEER, "numpy", "tqdm", "msgspec"])
    runs: dict[str, dict[str, list[float]]] = {}
    for case, (figure, _, _, both) in CASES.items():
        runs[case] = {"ramify": [], "sglang": []}
        for number in range(rounds):
            say(f"{case}: round {number + 1} of {rounds}")
            runs[case]["ramify"].append(_measure(sys.executable, "frontend_ramify.py", case, repeats)[figure])
            if both and peer is not None:
                runs[case]["sglang"].append(_measure(peer, "frontend_sglang.py", case, repeats)[figure])
    _print(runs)
    write(arguments.json, runs, _bars(runs), about)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="ramify's frontend beside SGLang's, on a backend that does nothing")
    parser.add_argument("--quick", action="store_true", help="two rounds instead of five")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--peer", metavar="PYTHON", help=f"a Python that has {PEER}")
    return parser.parse_args()


def _measure(python: str, script: str, case: str, repeats: int) -> dict[str, Any]:
    return worker([python, str(HERE / script), case, str(repeats)], timeout=300)


def _print(runs: dict[str, dict[str, list[float]]]) -> None:
    print(f"{'case':18} {'ramify':>12} {'sglang':>12} {'ratio':>8}")
    for case, (_, unit, _, _) in CASES.items():
        ours, theirs = runs[case]["ramify"], runs[case]["sglang"]
        peer = f"{median(theirs):.4g} {unit}" if theirs else "-"
        ratio = f"{median(theirs) / median(ours):.1f}x" if theirs else "-"
        print(f"{case:18} {f'{median(ours):.4g} {unit}':>12} {peer:>12} {ratio:>8}")


def _bars(runs: dict[str, dict[str, list[float]]]) -> dict[str, Bar]:
    return {
        case: Bar(median(runs[case]["ramify"]), bar, unit)
        for case, (_, unit, bar, _) in CASES.items()
        if bar is not None
    }


if __name__ == "__main__":
    main()
