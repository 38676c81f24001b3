"""Many programs against a server: how close their time comes to what its latency and connections allow, and memory.

`python -m benchmarks.endpoints [--quick] [--json FILE]`. The server (a process of its own) answers after 200 ms
whatever it is asked; 256 connections. The ideal is programs x calls x latency / connections, and never less than whole
waves of requests. Programs run in a process of their own, whose largest size is what counts as memory.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .report import Bar, machine, median, say, worker, write

HERE = Path(__file__).parent
LATENCY = 0.2
CONNECTIONS = 256
PROGRAMS = 2000
# Calls that a program makes, one after the other.
CALLS = (1, 3)


def main() -> None:
    """Measure and report."""
    arguments = _arguments()
    about = machine()
    runs: dict[str, list[dict[str, float]]] = {}
    with _server() as url:
        for number in range(1 if arguments.quick else 5):
            for calls in CALLS:
                say(f"round {number + 1}: {PROGRAMS} programs of {calls} calls")
                words = [url, str(PROGRAMS), str(calls), str(CONNECTIONS)]
                command = [sys.executable, str(HERE / "endpoints_ramify.py"), *words]
                runs.setdefault(str(calls), []).append(worker(command, timeout=300))
    bars: dict[str, Bar] = {}
    for calls in CALLS:
        measured = runs[str(calls)]
        ideal = math.ceil(PROGRAMS / CONNECTIONS) * calls * LATENCY
        seconds, processor = (median(each[name] for each in measured) for name in ("seconds", "processor"))
        print(
            f"{calls} calls: {seconds:.2f} s, ideal {ideal:.2f} s; {processor / PROGRAMS / calls * 1e6:.0f} us a call"
        )
        bars[f"makespan of {calls} calls"] = Bar(seconds / ideal, 1.1, "x")
    sizes = [each["megabytes"] for measured in runs.values() for each in measured]
    bars["memory"] = Bar(max(sizes), 300, "MB")
    write(arguments.json, runs, bars, about)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="many programs against a server that answers after 200 ms")
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    return parser.parse_args()


@contextmanager
def _server() -> Iterator[str]:
    command = [sys.executable, str(HERE / "endpoints_server.py"), str(LATENCY)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"


if __name__ == "__main__":
    main()
