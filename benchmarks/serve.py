"""What a server adds to the engine's work: the same generations asked for in the process, and over HTTP.

`python -m benchmarks.serve [--quick] [--model DIR] [--json FILE]`. 32 clients each ask for one text after another, all
of different prompts, greedy and of a fixed length. Asked for in the process, each generation begins when the one before
has ended; over HTTP the clients are a process of their own. Both ways take turns in one process, each from an empty
cache. What is compared is that process's processor time: on a machine that others use as well, seconds say little.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ramify.backends import open_backend
from ramify.backends.local import LocalBackend
from ramify.lang.serving.server import Server
from ramify.lang.serving.settings import Settings
from ramify.runtime.context import Context
from ramify.runtime.loop import loop
from ramify.runtime.request import Delta, Event, Failed, SamplingParams
from ramify.runtime.uses import Owner, Use

from .report import Bar, machine, paired, say, write
from .serve_clients import Order

CLIENTS = 32
BAR = 0.05
_WORDS = [
    "the",
    "dog",
    "sees",
    "a",
    "red",
    "apple",
    "and",
    "the",
    "cat",
    "runs",
    "to",
    "a",
    "small",
    "house",
    "where",
    "nobody",
    "waits",
    "for",
    "it",
    "today",
]


@dataclass(frozen=True)
class Load:
    """What each client asks for: so many texts, of so many tokens, after prompts of so many words."""

    num_clients: int
    num_texts: int
    num_words: int
    num_tokens: int

    def prompts(self) -> list[list[str]]:
        """The prompts of each client. No two begin alike."""
        return [
            [f"{client} {number} " + self._words(client * self.num_texts + number) for number in range(self.num_texts)]
            for client in range(self.num_clients)
        ]

    def _words(self, seed: int) -> str:
        return " ".join(_WORDS[(seed * 7 + i * (seed % 5 + 1)) % len(_WORDS)] for i in range(self.num_words))


@dataclass(frozen=True)
class Measured:
    """One run. processor: seconds of processor time of this process, all threads; seconds: on the clock."""

    way: str
    streams: bool
    processor: float
    seconds: float


def within(backend: LocalBackend, load: Load, *, streams: bool) -> None:
    """Ask for everything in this process, and wait."""
    ended = threading.Semaphore(0)
    for prompts in load.prompts():
        loop().soon(partial(_Client(backend, prompts, load.num_tokens, ended, streams=streams).go_on))
    for _ in range(load.num_clients):
        ended.acquire()


class _Client:
    """A client in this process: asks for the next text when it has one. On ramify's loop."""

    sharing = None

    def __init__(
        self, backend: LocalBackend, prompts: Sequence[str], num: int, ended: threading.Semaphore, *, streams: bool
    ) -> None:
        self.wants_deltas = streams
        self.use = Use(Owner(), None, False)
        self._backend = backend
        self._prompts = list(reversed(prompts))
        self._params = SamplingParams(max_tokens=num, ignore_eos=True)
        self._ended = ended

    def go_on(self) -> None:
        """Ask for the next text."""
        if not self._prompts:
            self.use.owner.end()
            self._ended.release()
            return
        prompt = Context(self._backend).root().append_text(self._prompts.pop())
        self._backend.generate(prompt, self._params, self)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Failed):
            raise event.error
        if not isinstance(event, Delta):
            self.go_on()


@contextmanager
def clients() -> Iterator[subprocess.Popen[str]]:
    """The clients' process."""
    script = Path(__file__).with_name("serve_clients.py")
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


def over_http(server: Server, process: subprocess.Popen[str], load: Load, *, streams: bool) -> None:
    """Ask for everything through the server, and wait. Raises RuntimeError if an answer is missing."""
    fixed = {"max_tokens": load.num_tokens, "temperature": 0, "ignore_eos": True, "stream": streams}
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    order: Order = {
        "host": host,
        "port": int(port),
        "path": "/v1/completions",
        "clients": [[{"prompt": prompt, **fixed} for prompt in prompts] for prompts in load.prompts()],
    }
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    answered = json.loads(process.stdout.readline() or '{"answers": 0}')
    if answered["answers"] != load.num_clients * load.num_texts:
        raise RuntimeError(f"the clients got {answered['answers']} answers")


def measure(backend: LocalBackend, load: Load, num_rounds: int) -> list[Measured]:
    """Both ways in turn, whole answers and streams; a first round, which is not counted, warms up."""
    found: list[Measured] = []
    with Server(backend, Settings(port=0)) as server, clients() as process:
        ways: dict[str, Any] = {
            "in the process": partial(within, backend, load),
            "over HTTP": partial(over_http, server, process, load),
        }
        for number in range(num_rounds + 1):
            for streams in (False, True):
                for way, run in ways.items():
                    backend.clear_cache()
                    begun, processor = time.perf_counter(), time.process_time()
                    run(streams=streams)
                    one = Measured(way, streams, time.process_time() - processor, time.perf_counter() - begun)
                    if number:
                        found.append(one)
                        say(f"{number} {way:15} streams={streams!s:6} {one.processor:8.3f} s {one.seconds:8.3f} s")
    return found


def bars(found: Sequence[Measured]) -> dict[str, Bar]:
    """How much more processor time the server's way takes."""
    made = {}
    for streams, name in ((False, "whole answers"), (True, "streams")):
        ours, theirs = (
            [each.processor for each in found if each.streams is streams and each.way == way]
            for way in ("over HTTP", "in the process")
        )
        ratio, error = paired(ours, theirs)
        made[f"server adds, {name}"] = Bar(ratio - 1, BAR, "of the engine's time", error=error)
    return made


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter texts")
    parser.add_argument("--model", default="tiny", help="a model directory; the embedded model is far cheaper than any")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    backend = open_backend(given.model)
    assert isinstance(backend, LocalBackend), f"{given.model} is no model of this process"
    about = machine() | {"model": backend.name}
    is_small = backend.model.config.hidden_size < 512
    load = Load(CLIENTS, (8 if is_small else 1) if given.quick else 16, 32, 64 if is_small else 24)
    found = measure(backend, load, 3 if given.quick else 5)
    write(given.json, [asdict(each) for each in found] + [{"load": asdict(load)}], bars(found), about)


if __name__ == "__main__":
    main()
