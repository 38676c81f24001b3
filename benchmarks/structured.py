"""Time per output token of JSON of a schema, beside the same generation without one, and beside other libraries.

`python -m benchmarks.structured [--quick] [--json FILE] [--no-peers] [--peer PYTHON]`: the embedded model serves three
kinds of requests in turn: JSON with fast-forward, the same JSON one token a step, and free text of as many tokens.
Prompts are in the cache before the clock starts, so that decoding is all that is timed. The peers are `transformers`
alone, and with outlines and guidance, in an environment of their own (made under build/ unless --peer names one's
Python): see structured_peer.py. With `--masks`: what masks cost in a step of the 0.6B shape, see structured_masks.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from ramify.backends.tiny import model_dir
from ramify.runtime.constraint import json_schema_constraint
from ramify.runtime.engine import Engine
from ramify.runtime.models import load_model
from ramify.runtime.request import Done, EngineRequest, Event, Failed, SamplingParams
from ramify.runtime.tokens import Tokenizer

from .checkpoint import random_checkpoint
from .report import DATA, Bar, machine, median, peer_python, say, worker, write
from .structured_masks import mask_steps
from .structured_tasks import Task, tasks
from .watched_grammars import Clock, Watched

PEERS = ("outlines==1.3.3", "guidance==0.3.1", "transformers==4.57.6")
BATCHES = (1, 8, 32)
MOST = 600
PEER_TOKENS = 150
TORCH = "torch==2.13.0"
KINDS = ("forced", "one by one", "free")


@dataclass(frozen=True)
class Timed:
    """One batch. token_ms: time per output token of a sequence; cpu_ms: the same of the process's CPU time.

    Shares are of the steps' time, on the engine's thread. mask_wait: waiting for masks after the forward pass.
    constraint: that, applying them and following the grammar.
    """

    task: str
    batch: int
    kind: str
    tokens: int
    steps: int
    token_ms: float
    cpu_ms: float
    mask_wait: float
    constraint: float


@dataclass
class Bench:
    """A model with an engine for each way to take what is forced, and one batch's requests."""

    model: Any
    tokenizer: Tokenizer
    grammars: Watched
    engines: dict[bool, Engine] = field(init=False)

    def __post_init__(self) -> None:
        self.engines = {
            fast: Engine(
                self.model,
                self.tokenizer.decode_stream,
                kv_tokens=60_000,
                eos_token_ids=self.tokenizer.eos_ids,
                grammars=self.grammars,
                fast_forward=fast,
            )
            for fast in (True, False)
        }

    def run(self, task: Task, kind: str, lengths: list[int]) -> tuple[Timed, list[Done]]:
        """One batch from an empty cache that then holds the prompts. lengths: of the free texts, in tokens."""
        engine = self.engines[kind != "one by one"]
        engine.clear_cache()
        prompts = [self.tokenizer.encode(prompt) for prompt in task.prompts]
        _serve(engine, prompts, [SamplingParams(max_tokens=1)] * len(prompts))
        if kind == "free":
            params = [SamplingParams(max_tokens=length, ignore_eos=True) for length in lengths]
        else:
            constraint = json_schema_constraint(task.schema)
            self.grammars.compile(constraint)
            params = [SamplingParams(max_tokens=MOST, constraint=constraint)] * len(prompts)
        self.grammars.clock = clock = Clock()
        steps, begun, busy = engine.stats().steps, time.perf_counter(), time.process_time()
        done = _serve(engine, prompts, params)
        seconds, busy = time.perf_counter() - begun, time.process_time() - busy
        tokens = sum(each.generated_tokens for each in done)
        return Timed(
            task=task.name,
            batch=len(prompts),
            kind=kind,
            tokens=tokens,
            steps=engine.stats().steps - steps,
            token_ms=seconds * 1e3 * len(prompts) / tokens,
            cpu_ms=busy * 1e3 * len(prompts) / tokens,
            mask_wait=clock.waited / seconds,
            constraint=(clock.waited + clock.followed) / seconds,
        ), done


def _serve(engine: Engine, prompts: list[list[int]], params: Sequence[SamplingParams]) -> list[Done]:
    """Runs requests to their ends by stepping the engine on this thread. Raises what one of them fails with."""
    ended: dict[int, Done] = {}

    def sink(place: int, event: Event) -> None:
        if isinstance(event, Failed):
            raise SystemExit(f"a request failed: {event.error}")
        if isinstance(event, Done):
            ended[place] = event

    for place, (prompt, each) in enumerate(zip(prompts, params, strict=True)):
        engine.submit(EngineRequest(prompt, each, lambda event, place=place: sink(place, event)))  # type: ignore[misc]
    while engine.step():
        pass
    return [ended[place] for place in range(len(prompts))]


def measure(bench: Bench, task: Task, rounds: int) -> list[Timed]:
    """All kinds in turn, as often as there are rounds; one more at first that does not count."""
    runs: list[Timed] = []
    lengths: list[int] = []
    for number in range(rounds + 1):
        for kind in KINDS if number % 2 == 0 else ("one by one", "forced", "free"):
            timed, done = bench.run(task, kind, lengths)
            if kind != "free":
                lengths = [each.generated_tokens for each in done]
                _check(task, done)
            if number:
                runs.append(timed)
    return runs


def _check(task: Task, done: list[Done]) -> None:
    """What was generated is JSON of the schema. Raises SystemExit otherwise."""
    for each in done:
        if each.finish_reason != "stop" or list(json.loads(each.text)) != task.schema["required"]:
            raise SystemExit(f"{task.name}: {each.text!r} is not what the schema asks for")


def main() -> None:
    """Measure and report."""
    arguments = _arguments()
    about = machine() | {"torch_threads": torch.get_num_threads()}
    if arguments.masks:
        _main_masks(arguments, about)
        return
    tokenizer = Tokenizer.load(model_dir())
    model = load_model(model_dir(), dtype=torch.float32)
    bench = Bench(model, tokenizer, Watched(tokenizer, model.config.vocab_size))
    runs: list[Timed] = []
    for batch in BATCHES:
        for task in tasks(DATA, batch):
            say(f"{task.name}, batch {batch}")
            runs += measure(bench, task, 2 if arguments.quick else 5)
    peer = (
        None
        if arguments.no_peers
        else arguments.peer or peer_python("structured", "import torch, outlines, guidance", [TORCH], PEERS)
    )
    peers = [] if peer is None else _peers(bench, peer, BATCHES[:1] if arguments.quick else BATCHES[:2])
    _print(runs, peers)
    write(arguments.json, {"ramify": [asdict(run) for run in runs], "peers": peers}, _bars(runs), about)


def _main_masks(arguments: argparse.Namespace, about: dict[str, Any]) -> None:
    """What masks cost in steps of 32 requests of a model's shape."""
    task = tasks(DATA, BATCHES[-1])[0]
    ranks = DATA / "tokenizers" / "gpt2.tiktoken"
    steps = mask_steps(random_checkpoint("0.6b", Path("build")), ranks, task, 6 if arguments.quick else 20)
    shares = {
        "masks": median(step.beside / step.seconds for step in steps),
        "waited": median(step.waited / step.seconds for step in steps),
        "constraint": median(step.constraint / step.seconds for step in steps),
    }
    print(f"a step of 32 requests: {median(step.seconds for step in steps) * 1e3:.1f} ms")
    for name, share in shares.items():
        print(f"  {name:11} {share:.2%}")
    bars = {"time of constraints, batch 32": Bar(shares["constraint"], 0.03, "of a step")}
    write(arguments.json, {"steps": [asdict(step) for step in steps]}, bars, about)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="time per output token of JSON of a schema")
    parser.add_argument("--quick", action="store_true", help="two rounds instead of five, peers at batch 1")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--masks", action="store_true", help="only what masks cost in a step of the 0.6B shape")
    parser.add_argument("--no-peers", action="store_true", help="only ramify")
    parser.add_argument("--peer", metavar="PYTHON", help=f"a Python that has {', '.join(PEERS)}")
    return parser.parse_args()


def _peers(bench: Bench, python: str, batches: Sequence[int]) -> list[dict[str, Any]]:
    """What the peers take for the same prompts and schemas, a process each, and what ramify takes right after."""
    figures: list[dict[str, Any]] = []
    script = str(Path(__file__).parent / "structured_peer.py")
    with tempfile.TemporaryDirectory() as folder:
        for task in (task for batch in batches for task in tasks(DATA, batch)):
            batch = len(task.prompts)
            path = Path(folder) / f"{task.name}-{batch}.json"
            path.write_text(json.dumps(asdict(task)))
            for library in ("transformers", "outlines", "guidance"):
                say(f"{library}: {task.name}, batch {batch}")
                command = [python, script, library, str(model_dir()), str(path), str(torch.get_num_threads())]
                told = worker(command, timeout=900)
                kind = "free" if library == "transformers" else "forced"
                ours = [bench.run(task, kind, [PEER_TOKENS] * batch)[0] for _ in range(3)]
                about = {"library": library, "task": task.name, "batch": batch}
                about |= {"ramify_ms": _median(ours, "token_ms"), "ramify_cpu_ms": _median(ours, "cpu_ms")}
                figures.append(about | told)
    return figures


def _of(runs: list[Timed], task: str, batch: int, kind: str) -> list[Timed]:
    return [run for run in runs if (run.task, run.batch, run.kind) == (task, batch, kind)]


def _places(runs: list[Timed]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((run.task, run.batch) for run in runs))


def _median(runs: list[Timed], what: str) -> float:
    return median(getattr(run, what) for run in runs)


def _print(runs: list[Timed], peers: list[dict[str, Any]]) -> None:
    for what, unit in (("token_ms", "ms"), ("cpu_ms", "ms of CPU time")):
        print(f"{unit} per output token of a sequence")
        print("task         batch     forced  one by one       free     one/   free/  steps/     mask  constraint")
        print("                                                      forced  forced   token     wait")
        for task, batch in _places(runs):
            every = _of(runs, task, batch, "forced")
            forced, single, free = (_median(_of(runs, task, batch, kind), what) for kind in KINDS)
            print(
                f"{task:12} {batch:5} {forced:10.3f} {single:11.3f} {free:10.3f} {single / forced:8.2f} "
                f"{free / forced:7.2f} {every[0].steps * batch / every[0].tokens:7.2f} "
                f"{_median(every, 'mask_wait'):8.1%} {_median(every, 'constraint'):11.1%}"
            )
    for figure in peers:
        ratio = figure["token_ms"] / figure["ramify_ms"]
        print(
            f"{figure['task']:12} {figure['batch']:5} {figure['token_ms']:10.3f}  {figure['library']}, "
            f"ramify {figure['ramify_ms']:.3f}: {ratio:.1f}x; CPU time {figure['cpu_ms']:.3f} to "
            f"{figure['ramify_cpu_ms']:.3f}; {figure['valid']} of {figure['batch']} are JSON"
        )


def _bars(runs: list[Timed]) -> dict[str, Bar]:
    bars: dict[str, Bar] = {}
    for task, batch in _places(runs):
        forced, single, free = (_median(_of(runs, task, batch, kind), "token_ms") for kind in KINDS)
        bars[f"{task} x{batch}: free / constrained"] = Bar(free / forced, 1.0, "x", at_most=False)
        bars[f"{task} x{batch}: fast-forward pays"] = Bar(single / forced, 1.25, "x", at_most=False)
    return bars


if __name__ == "__main__":
    main()
