"""The cases of benchmarks/frontend.py on ramify: `python frontend_ramify.py CASE` prints one JSON object.

The backend answers " yes" at once, or after a delay; it looks at nothing.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import ramify as rf
from ramify.backends.scripted import MARKS
from ramify.lang.compiled import Compiled
from ramify.runtime.backend import Sink
from ramify.runtime.loop import loop, post
from ramify.runtime.prompt import Prompt
from ramify.runtime.request import Done, SamplingParams

_DONE = Done(" yes", (1,), "stop", generated_tokens=1)


class NoHandle:
    """A request that cannot be cancelled, since it is over when it begins."""

    def cancel(self) -> None:
        """Nothing to do."""


class NoOp:
    """A backend that does nothing but answer."""

    name = "no-op"
    chat = MARKS
    features = frozenset({"select", "score", "seed"})

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Sink) -> NoHandle:
        """Answer."""
        if self.delay:
            post(loop().later, self.delay, sink, _DONE)
        else:
            post(sink, _DONE)
        return NoHandle()

    def select(self, prompt: Prompt, choices: Sequence[str], method: Any, sink: Sink) -> NoHandle:
        """Take the first."""
        post(sink, Done(choices[0], (1,), "stop"))
        return NoHandle()

    def close(self) -> None:
        """Nothing to do."""


@rf.program
def ask(s, question):
    s += "Q: " + question + "\nA:"
    s += rf.gen("answer", max_tokens=16)


@rf.program
def spread(s, topic, width):
    s += "Topic: " + topic + "\n"
    forks = s.fork(width)
    for number, branch in enumerate(forks):
        branch += f"Aspect {number}:"
        branch += rf.gen("aspect", max_tokens=16)
    forks.join()
    s += "\n".join(s["aspect"])


def one_gen(rounds: int) -> dict[str, float]:
    """Microseconds of one run and one read."""
    backend = NoOp()
    program = ask.options(backend=backend)
    program.run("warm")["answer"]
    return {"us": _per_call(rounds, 200, lambda: program.run("why?")["answer"]) * 1e6}


def one_gen_one_core(rounds: int) -> dict[str, float]:
    """The same with the process on one core, where waking the other thread costs least."""
    _stay_on_one_core()
    return one_gen(rounds)


def thread_round_trip(rounds: int) -> dict[str, float]:
    """Microseconds that two threads take to pass a token forth and back: a run that is waited for takes one such."""
    there: SimpleQueue[int] = SimpleQueue()
    back: SimpleQueue[int] = SimpleQueue()

    def answer() -> None:
        while True:
            back.put(there.get())

    def ask_and_wait() -> None:
        there.put(0)
        back.get()

    threading.Thread(target=answer, daemon=True).start()
    return {"us": _per_call(rounds, 1000, ask_and_wait) * 1e6}


def batch_row(rounds: int) -> dict[str, float]:
    """Microseconds a row of a batch of 1,000."""
    rows = [{"question": f"why {number}?"} for number in range(1000)]
    ask.run_batch(rows, backend=NoOp())
    return {"us": _per_call(rounds, 1, lambda: ask.run_batch(rows, backend=NoOp())) / len(rows) * 1e6}


def fork_join(rounds: int) -> dict[str, float]:
    """Milliseconds of a fork of 64 with a gen each, joined and read."""
    program = spread.options(backend=NoOp())
    program.run("warm", 64)["aspect"]
    return {"ms": _per_call(rounds, 20, lambda: program.run("why?", 64)["aspect"]) * 1e3}


def slow_gens(rounds: int) -> dict[str, float]:
    """Seconds for 400 programs whose gen takes one second."""
    rows = [{"question": f"why {number}?"} for number in range(400)]
    begun = time.perf_counter()
    runs = ask.run_batch(rows, backend=NoOp(delay=1.0), max_in_flight=400)
    seconds = time.perf_counter() - begun
    assert [run["answer"] for run in runs] == [" yes"] * 400
    return {"s": seconds}


def threads(rounds: int) -> dict[str, float]:
    """The most threads of the process while 256 programs with 8 forks each wait for gens of 0.5 s."""
    rows = [{"topic": f"topic {number}", "width": 8} for number in range(256)]
    most, stop = [0], threading.Event()
    watcher = threading.Thread(target=_watch_threads, args=(most, stop))
    watcher.start()
    runs = spread.run_batch(rows, backend=NoOp(delay=0.5), max_in_flight=256)
    stop.set()
    watcher.join()
    assert all(len(run["aspect"]) == 8 for run in runs)
    return {"threads": most[0] - 1}  # less the watcher


def _watch_threads(most: list[int], stop: threading.Event) -> None:
    while not stop.wait(0.01):
        most[0] = max(most[0], len(list(Path("/proc/self/task").iterdir())))


def in_flight(rounds: int) -> dict[str, float]:
    """The process's largest resident memory in MB with 10,000 programs waiting at once, and what they add to it."""
    rows = [{"question": f"why {number}?"} for number in range(10_000)]
    ask.run_batch(rows[:10], backend=NoOp())
    before = _peak_mb()
    ask.run_batch(rows, backend=NoOp(delay=3.0), max_in_flight=len(rows))
    return {"mb": _peak_mb(), "added_mb": _peak_mb() - before}


def compile_time(rounds: int) -> dict[str, float]:
    """Milliseconds to compile a program of 100 lines: lowering, passes, verification and linking."""
    from frontend_program import interview

    assert isinstance(interview, rf.Program)
    Compiled.of(interview.fn)
    return {"ms": _per_call(max(rounds, 9), 1, lambda: Compiled.of(interview.fn)) * 1e3}


def _stay_on_one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _per_call(rounds: int, calls: int, function: Callable[[], Any]) -> float:
    """Seconds of a call: the median over `rounds` of means over `calls`."""
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(calls):
            function()
        seconds.append((time.perf_counter() - begun) / calls)
    return statistics.median(seconds)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


CASES = {
    case.__name__: case
    for case in (
        one_gen,
        one_gen_one_core,
        thread_round_trip,
        batch_row,
        fork_join,
        slow_gens,
        threads,
        in_flight,
        compile_time,
    )
}

if __name__ == "__main__":
    print(json.dumps(CASES[sys.argv[1]](int(sys.argv[2]))))
