"""The same cases on SGLang's frontend (sglang 0.5.23): `python frontend_sglang.py CASE ROUNDS` prints one JSON object.

Runs in an environment of its own, where sglang is installed without its dependencies; what its frontend imports but
does not use here (server, web and image libraries) is replaced by empty modules. The backend answers as ramify's does.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

_UNUSED = (
    "sglang.srt",
    "pybase64",
    "requests",
    "IPython",
    "pydantic",
    "PIL",
    "cv2",
    "aiohttp",
    "torch",
    "transformers",
)


class _EmptyModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an empty module for every name in _UNUSED and below."""

    def find_spec(self, name, path=None, target=None):
        if any(name == unused or name.startswith(unused + ".") for unused in _UNUSED):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Empty(spec.name)

    def exec_module(self, module):
        module.__path__ = []


class _Empty(ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=name)


sys.meta_path.insert(0, _EmptyModules())

import sglang as sgl  # noqa: E402
from sglang.lang.backend.base_backend import BaseBackend  # noqa: E402
from sglang.lang.chat_template import get_chat_template  # noqa: E402


class NoOp(BaseBackend):
    """A backend that does nothing but answer."""

    def __init__(self, delay=0.0):
        super().__init__()
        self.delay = delay
        self.chat_template = get_chat_template("chatml")

    def generate(self, s, sampling_params):
        if self.delay:
            time.sleep(self.delay)
        return " yes", {}


@sgl.function
def ask(s, question):
    s += "Q: " + question + "\nA:"
    s += sgl.gen("answer", max_tokens=16)


@sgl.function
def spread(s, topic, width):
    s += "Topic: " + topic + "\n"
    forks = s.fork(width)
    for number, branch in enumerate(forks):
        branch += f"Aspect {number}:"
        branch += sgl.gen("aspect", max_tokens=16)
    forks.join()
    s += "\n".join(s["aspect"])


def one_gen(rounds):
    backend = NoOp()
    ask.run("warm", backend=backend)["answer"]
    return {"us": _per_call(rounds, 200, lambda: ask.run("why?", backend=backend)["answer"]) * 1e6}


def one_gen_one_core(rounds):
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return one_gen(rounds)


def batch_row(rounds):
    rows = [{"question": f"why {number}?"} for number in range(1000)]
    run = lambda: ask.run_batch(rows, backend=NoOp(), progress_bar=False)  # noqa: E731
    run()
    return {"us": _per_call(rounds, 1, run) / len(rows) * 1e6}


def fork_join(rounds):
    backend = NoOp()
    spread.run("warm", 64, backend=backend)["aspect"]
    return {"ms": _per_call(rounds, 20, lambda: spread.run("why?", 64, backend=backend)["aspect"]) * 1e3}


def slow_gens(rounds):
    rows = [{"question": f"why {number}?"} for number in range(400)]
    begun = time.perf_counter()
    states = ask.run_batch(rows, backend=NoOp(delay=1.0), progress_bar=False)
    seconds = time.perf_counter() - begun
    assert [state["answer"] for state in states] == [" yes"] * 400
    return {"s": seconds}


def threads(rounds):
    rows = [{"topic": f"topic {number}", "width": 8} for number in range(256)]
    most, stop = [0], threading.Event()
    watcher = threading.Thread(target=_watch_threads, args=(most, stop))
    watcher.start()
    states = spread.run_batch(rows, backend=NoOp(delay=0.5), num_threads=256, progress_bar=False)
    stop.set()
    watcher.join()
    assert all(len(state["aspect"]) == 8 for state in states)
    return {"threads": most[0] - 1}


def _watch_threads(most, stop):
    while not stop.wait(0.01):
        most[0] = max(most[0], len(list(Path("/proc/self/task").iterdir())))


def _per_call(rounds, calls, function):
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(calls):
            function()
        seconds.append((time.perf_counter() - begun) / calls)
    return statistics.median(seconds)


CASES = {case.__name__: case for case in (one_gen, one_gen_one_core, batch_row, fork_join, slow_gens, threads)}

if __name__ == "__main__":
    print(json.dumps(CASES[sys.argv[1]](int(sys.argv[2]))))
