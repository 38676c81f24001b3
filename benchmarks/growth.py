"""What grows with what: the prefix tree with cached tokens, the engine's own work with requests, a step with branches.

`python -m benchmarks.growth [--quick] [--json FILE] [--svg FILE] [--only tree own branches speed]`. Everything runs on
one thread, and what counts is the processor time of that thread, so that other work on the machine disturbs less.

tree: `match` and `insert` of prompts in a tree of so many cached tokens, by 100 tokens. own: a step of the engine with
a model that only looks its logits up, with so many running requests: what scheduling, batches, sampling and
detokenizing cost. branches: a step of the embedded model with so many branches over one prefix, and with the same
contexts unshared. speed: tokens a second of the embedded model.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ramify.backends.tiny import model_dir
from ramify.runtime.engine import Engine
from ramify.runtime.models import load_model
from ramify.runtime.pool import KVLayout, KVPool
from ramify.runtime.radix import RadixTree
from ramify.runtime.request import EngineRequest, Event, SamplingParams
from ramify.runtime.tokens import Tokenizer

from .growth_plot import plot
from .lockstep import CountingModel
from .report import Bar, machine, median, write

TREE_SIZES = (10_000, 100_000, 1_000_000)
RUNNING = (1, 32, 256)
BRANCHES = (1, 4, 16, 64, 256)
PREFIX = 4096
# About what a step takes with a model of the shape of Qwen3-0.6B on two cores (benchmarks.engine).
REAL_STEP_SECONDS = 0.3
_VOCAB = 50_000


def main() -> None:
    """Measure and report."""
    arguments = _arguments()
    torch.set_num_threads(1)
    about = machine()
    cases: dict[str, Callable[[bool], dict[str, Any]]] = {
        "tree": tree,
        "own": own_work,
        "branches": branches,
        "speed": speed,
    }
    runs = {name: cases[name](arguments.quick) for name in arguments.only}
    write(arguments.json, runs, _bars(runs), about)
    if arguments.svg is not None:
        Path(arguments.svg).write_text(plot(runs["branches"], PREFIX), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    names = ["tree", "own", "branches", "speed"]
    parser = argparse.ArgumentParser(description="how the engine's costs grow")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="what to measure")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--svg", metavar="FILE", help="draw how a step grows with branches")
    arguments = parser.parse_args()
    if arguments.svg is not None and "branches" not in arguments.only:
        parser.error("--svg draws branches: name them in --only")
    return arguments


def tree(quick: bool) -> dict[str, Any]:
    """Microseconds by 100 tokens, for prompts of which 512 tokens are shared by 16 and 100 are their own."""
    found = {}
    print(f"{'cached tokens':>14}{'nodes':>8}{'match':>8}{'insert':>8}   us by 100 tokens")
    for size in TREE_SIZES:
        filled, prompts = _filled_tree(size)
        picked = random.Random(1).sample(prompts, 15) * (4 if quick else 40)
        fresh = np.random.default_rng(2)
        matches, inserts = [], []
        for prompt in picked:
            matches.append(_micros(filled.match, prompt) / len(prompt) * 100)
            node, run, extent = filled.match(prompt[:512]), fresh.integers(0, _VOCAB, 100), filled.pool.allocate(100)
            inserts.append(_micros(filled.insert, node, run, extent))
        found[str(size)] = {"nodes": filled.num_nodes, "match": median(matches), "insert": median(inserts)}
        print(f"{size:14,}{filled.num_nodes:8,}{median(matches):8.2f}{median(inserts):8.2f}")
    return found


def _filled_tree(size: int) -> tuple[RadixTree, list[Any]]:
    """A tree of so many tokens, and the prompts in it."""
    draw = np.random.default_rng(0)
    filled = RadixTree(KVPool(KVLayout(1, 1, 1, torch.float32, torch.device("cpu")), 2 * size + 100_000))
    prompts = []
    while filled.num_tokens < size:
        shared = draw.integers(0, _VOCAB, 512)
        for _ in range(16):
            prompt = np.concatenate([shared, draw.integers(0, _VOCAB, 100)])
            node = filled.match(prompt)
            known = 0 if node is None else node.end
            filled.insert(node, prompt[known:], filled.pool.allocate(len(prompt) - known))
            prompts.append(prompt)
    return filled, prompts


def own_work(quick: bool) -> dict[str, Any]:
    """Microseconds of a decode step besides the model, by running requests; greedy and drawn."""
    tokenizer = Tokenizer.load(model_dir())
    model = CountingModel(load_model(model_dir(), dtype=torch.float32, device=torch.device("cpu")).config)
    found = {}
    print(f"{'running':>14}{'greedy':>9}{'drawn':>9}   us a step besides the model")
    for count in RUNNING:
        taken = {}
        for name, temperature in (("greedy", 0.0), ("drawn", 0.8)):
            params = SamplingParams(max_tokens=150, temperature=temperature, ignore_eos=True, seed=1)
            engine = _engine(model, tokenizer)
            with _without_model(engine) as model_seconds:
                steps = _decode_steps(engine, _prompts(count, 64, 0), params, 40 if quick else 100, model_seconds)
            taken[name] = steps["cpu"]
        found[str(count)] = {name: seconds * 1e6 for name, seconds in taken.items()}
        print(f"{count:14}{taken['greedy'] * 1e6:9.0f}{taken['drawn'] * 1e6:9.0f}")
    return found


def branches(quick: bool) -> dict[str, Any]:
    """Milliseconds of a decode step of branches with 16 tokens of their own, shared and (as far as is bearable) not."""
    tokenizer, model = Tokenizer.load(model_dir()), _long_model()
    found = {}
    names = ("distinct", "summed", "shared", "unshared", "no prefix")
    print(f"{'branches':>14}" + "".join(f"{name:>11}" for name in names) + "   ms a step")
    for count in BRANCHES[:-1] if quick else BRANCHES:

        def measured(prefix: int, share: bool, count: int = count) -> float:
            engine = _engine(model, tokenizer, prefix_cache=share)
            params = SamplingParams(max_tokens=40, ignore_eos=True)
            return _decode_steps(engine, _prompts(count, 16, prefix), params, 6 if quick else 16)["cpu"] * 1e3

        row: dict[str, float | None] = {
            "distinct": PREFIX + 16 * count,
            "summed": (PREFIX + 16) * count,
            "shared": measured(PREFIX, True),
            "unshared": measured(PREFIX, False) if count <= (4 if quick else 16) else None,
            "alone": measured(0, True),
        }
        found[str(count)] = row
        print(f"{count:14}" + "".join("-".rjust(11) if value is None else f"{value:11,.6g}" for value in row.values()))
    return found


def speed(quick: bool) -> dict[str, Any]:
    """Tokens a second of the embedded model while it decodes, by processor time and by wall time."""
    tokenizer, model = Tokenizer.load(model_dir()), load_model(model_dir(), dtype=None, device=torch.device("cpu"))
    found = {}
    for count in RUNNING:
        params = SamplingParams(max_tokens=120, ignore_eos=True)
        engine = _engine(model, tokenizer)
        with _without_model(engine) as model_seconds:
            rest = _decode_steps(engine, _prompts(count, 64, 0), params, 20 if quick else 80, model_seconds)
        engine = _engine(model, tokenizer)
        steps = _decode_steps(engine, _prompts(count, 64, 0), params, 20 if quick else 80)
        found[str(count)] = {
            "step_ms": steps["cpu"] * 1e3,
            "rest_ms": rest["cpu"] * 1e3,
            "tokens_per_second": count / steps["cpu"],
            "tokens_per_second_wall": count / steps["wall"],
        }
        print(
            f"{count:14} running: {count / steps['cpu']:8.0f} tokens/s of processor time, {count / steps['wall']:8.0f} "
            f"of wall time; a step {steps['cpu'] * 1e3:.2f} ms, {rest['cpu'] * 1e3:.2f} besides the model"
        )
    return found


def _long_model() -> Any:
    """The embedded model with a longer context than it was trained for, which costs the same."""
    model = load_model(model_dir(), dtype=None, device=torch.device("cpu"))
    model.config = replace(model.config, context_length=2 * PREFIX)
    return model


def _prompts(count: int, own: int, shared: int) -> list[list[int]]:
    draw = random.Random(3)
    prefix = [draw.randrange(16, 1500) for _ in range(shared)]
    return [prefix + [draw.randrange(16, 1500) for _ in range(own)] for _ in range(count)]


def _engine(model: Any, tokenizer: Tokenizer, prefix_cache: bool = True) -> Engine:
    return Engine(
        model,
        tokenizer.decode_stream,
        kv_tokens=120_000,
        chunk_tokens=1 << 14,
        step_seconds=None,
        prefix_cache=prefix_cache,
        eos_token_ids=tokenizer.eos_ids,
    )


@contextmanager
def _without_model(engine: Any) -> Iterator[list[float]]:
    """Sums what the model takes, in the one item of the list."""
    seconds, forward = [0.0], engine._model.forward
    shadow = type("Timed", (), {"config": engine._model.config, "layout": engine._model.layout})()

    def timed(batch: Any) -> torch.Tensor:
        begun = time.thread_time()
        logits: torch.Tensor = forward(batch)
        seconds[0] += time.thread_time() - begun
        return logits

    shadow.forward = timed
    engine._model = shadow
    yield seconds


def _decode_steps(
    engine: Engine,
    prompts: Sequence[list[int]],
    params: SamplingParams,
    count: int,
    less: list[float] | None = None,
) -> dict[str, float]:
    """The median step once all decode, in seconds of this thread's processor time and of wall time. less: a sum of
    seconds that are not to count."""
    less = [0.0] if less is None else less
    events: list[Event] = []
    for prompt in prompts:
        engine.submit(EngineRequest(prompt, params, events.append, wants_deltas=False))
    scheduler: Any = engine._scheduler
    while len(scheduler.running) < len(prompts) or scheduler.is_prefilling:
        engine.step()
    for _ in range(3):
        engine.step()
    cpu, wall = [], []
    for _ in range(count):
        left_out, begun, began = less[0], time.thread_time(), time.perf_counter()
        engine.step()
        cpu.append(time.thread_time() - begun - (less[0] - left_out))
        wall.append(time.perf_counter() - began)
    assert len(scheduler.running) == len(prompts), "a request has ended"
    engine.close()
    return {"cpu": median(cpu), "wall": median(wall)}


def _micros(action: Callable[..., object], *args: object) -> float:
    begun = time.perf_counter()
    action(*args)
    return (time.perf_counter() - begun) * 1e6


def _bars(runs: dict[str, dict[str, Any]]) -> dict[str, Bar]:
    bars: dict[str, Bar] = {}
    if "tree" in runs:
        for what in ("match", "insert"):
            bars[f"{what} at a million"] = Bar(runs["tree"]["1000000"][what], 5, "us/100")
    if "own" in runs:
        for how in ("greedy", "drawn"):
            micros = runs["own"]["256"][how]
            bars[f"own work, 256 {how}"] = Bar(micros / REAL_STEP_SECONDS / 1e4, 5, "% of 300 ms")
    if "speed" in runs:
        of_256 = runs["speed"]["256"]
        bars["own work, 256 embedded"] = Bar(100 * of_256["rest_ms"] / of_256["step_ms"], 5, "% of a step")
        for count, least in (("1", 800), ("32", 8000)):
            bars[f"embedded, batch {count}"] = Bar(runs["speed"][count]["tokens_per_second"], least, "tokens/s", False)
    return bars


if __name__ == "__main__":
    main()
