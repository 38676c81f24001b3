"""ramify on a GPU: decoding, prefill, trees and the engine, each beside what the device can do, and transformers.

`python -m benchmarks.gpu --json FILE [--seconds 570] [--quick] [--shapes llama-3-8b qwen3-0.6b]`. Random weights of
published shapes in bfloat16, made on the device. Bandwidth and matrix rate are measured first, in the same run; a floor
is the bytes that a step has to read over the one, or its operations over the other. The file is written after every
section, and all ends within the seconds given (benchmarks/sections.py). `--device cpu --shapes tiny` runs everything in
little time anywhere. `python -m benchmarks.on_gpu` runs the tests too, on a machine that has
little but torch.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ramify.runtime.batch import Batch
from ramify.runtime.models import Model
from ramify.runtime.models.operations import TorchOperations
from ramify.runtime.models.random_model import random_model
from ramify.runtime.weight_format import FORMATS

from .clock import Clock
from .gpu_batches import GENERATED, decode_batch, distinct_tokens, flat, prefill_batch
from .gpu_engine import DRAWN, GREEDY, NoModel, TimedModel, decode_steps
from .gpu_shapes import CONFIGS, config, decode_bytes, prefill_flops
from .gpu_transformers import Peer
from .report import Bar, machine, print_bars
from .sections import Figures, Journal, Section, run_sections

Runs = dict[str, Figures]
DTYPE = torch.bfloat16
# A decode step has its graph from the ninth time on.
_WARM_UPS = 12


@dataclass(frozen=True)
class Sizes:
    """What is measured, in tokens and sequences."""

    prompt: int = 128
    many: int = 64
    context: int = 2048
    prefill: int = 8192
    prefix: int = 8192
    grown_prefix: int = 4096
    branches: tuple[int, ...] = (1, 4, 16, 64, 256)
    running: tuple[int, ...] = (1, 64, 256)
    square: int = 8192  # of the matrices whose product gives the matrix rate
    copied: int = 1 << 30  # numbers


SMALL = Sizes(16, 4, 32, 64, 64, 32, (1, 4), (1, 3), 128, 1 << 16)


class Bench:
    """One run: a device, a clock, sizes, and the model that is on the device now."""

    def __init__(self, device: torch.device, seconds: float, runs: Runs) -> None:
        self.device = device
        self.clock = Clock(device, seconds)
        self.runs = runs
        self._shape = ""
        self._model: Model | None = None

    def model(self, shape: str) -> Model:
        """A model of random weights; the one before it goes."""
        if self._model is None or self._shape != shape:
            self.drop()
            self._model = random_model(config(shape), dtype=DTYPE, device=self.device)
            self._shape = shape
        return self._model

    def drop(self) -> None:
        """Gives the model's memory back."""
        self._model = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def rate(self, name: str) -> float:
        """Bytes or operations a second, as the first section found them."""
        found: float = self.runs["rates"][name]
        return found


def rates(bench: Bench, sizes: Sizes) -> Figures:
    """What the device can do: bytes a second, copied and read by a product with one row, and operations a second."""
    found = {name: measure(bench, sizes) for name, measure in (("copied", _copied), ("read", _read))}
    return found | {"bytes": max(found.values()), "flops": _multiplied(bench, sizes.square)}


def _copied(bench: Bench, sizes: Sizes) -> float:
    source = torch.randn(sizes.copied, device=bench.device, dtype=DTYPE)
    target = torch.empty_like(source)
    return 2 * source.nbytes / bench.clock.median(lambda: target.copy_(source))


def _read(bench: Bench, sizes: Sizes) -> float:
    matrix = torch.randn(sizes.copied // 4096, 4096, device=bench.device, dtype=DTYPE)
    row = matrix[:1].clone()
    return matrix.nbytes / bench.clock.median(lambda: torch.nn.functional.linear(row, matrix))


def _multiplied(bench: Bench, size: int) -> float:
    left, right = (torch.randn(size, size, device=bench.device, dtype=DTYPE) for _ in range(2))
    return 2 * size**3 / bench.clock.median(lambda: left @ right, warm_ups=10)


def decode(bench: Bench, shape: str, branches: int, shared: int, own: int) -> Figures:
    """A decode step of the model alone beside the bytes that it has to read."""
    model = bench.model(shape)
    batch = decode_batch(model.layout, branches, shared, own)
    return _against_bytes(bench, model, batch) | {"branches": branches, "shared": shared, "own": own}


def _against_bytes(bench: Bench, model: Model, batch: Batch, layer_itemsize: int = DTYPE.itemsize) -> Figures:
    seconds = bench.clock.median(lambda: model.forward(batch), _WARM_UPS)
    distinct = distinct_tokens(batch)
    least = decode_bytes(model.config, distinct, DTYPE.itemsize, model.layout.bytes_per_token, layer_itemsize)
    floor = least / bench.rate("bytes")
    in_a_row = bench.clock.mean(lambda: model.forward(batch), 10)
    return {
        "ms": seconds * 1e3,
        "ms_in_a_row": in_a_row * 1e3,
        "floor_ms": floor * 1e3,
        "share": floor / seconds,
        "distinct_tokens": distinct,
    }


def eight_bits(bench: Bench, shape: str, sizes: Sizes) -> Figures:
    """The same steps with the layers' weights in 8 bits, beside the bytes that these have."""
    bench.drop()
    found: Figures = {}
    for weights in FORMATS:
        model = random_model(config(shape), dtype=DTYPE, device=bench.device, weights=weights)
        for name, branches, own in (("1", 1, sizes.prompt), (str(sizes.many), sizes.many, sizes.context)):
            batch = decode_batch(model.layout, branches, 0, own)
            found[f"{weights}, batch {name}"] = _against_bytes(bench, model, batch, layer_itemsize=1)
    return found


def prefill(bench: Bench, shape: str, num_tokens: int) -> Figures:
    """A prompt in one chunk, beside its operations."""
    model = bench.model(shape)
    batch = prefill_batch(model.layout, num_tokens, model.config.vocab_size)
    seconds = bench.clock.median(lambda: model.forward(batch), warm_ups=1)
    floor = prefill_flops(model.config, num_tokens) / bench.rate("flops")
    return {"ms": seconds * 1e3, "floor_ms": floor * 1e3, "share": floor / seconds, "tokens": num_tokens}


def tree(bench: Bench, shape: str, sizes: Sizes) -> Figures:
    """Branches below a long prefix, beside the same below a short one, and beside each reading the prefix itself."""
    model = bench.model(shape)
    long = decode_batch(model.layout, sizes.many, sizes.prefix, 0)
    short = decode_batch(model.layout, sizes.many, sizes.prompt, 0)
    found = {"long": _against_bytes(bench, model, long), "short": _against_bytes(bench, model, short)}
    each = flat(long)
    apart = bench.clock.median(lambda: model.forward(each), _WARM_UPS)
    return {
        **found,
        "flat_ms": apart * 1e3,
        "over_short": found["long"]["ms"] / found["short"]["ms"],
        "flat_over_tree": apart * 1e3 / found["long"]["ms"],
    }


def growth(bench: Bench, shape: str, sizes: Sizes) -> Figures:
    """A step by the number of branches below a prefix."""
    model = bench.model(shape)
    return {
        str(count): _against_bytes(bench, model, decode_batch(model.layout, count, sizes.grown_prefix, 0))
        for count in sizes.branches
    }


def engine(bench: Bench, shape: str, running: int, steps: int, sampling: dict[str, Any]) -> Figures:
    """Decode steps of the whole engine, and what of them is not the model."""
    model = bench.model(shape)
    found = decode_steps(TimedModel(model, bench.clock), running, steps, sampling)
    alone = decode_steps(NoModel(model.config, bench.device), running, steps, sampling)
    beside = found["step"] - found["forward"]
    return {
        "running": running,
        "step_ms": found["step"] * 1e3,
        "model_ms": found["forward"] * 1e3,
        "beside_ms": beside * 1e3,
        "beside_share": beside / found["step"],
        "without_model_ms": alone["step"] * 1e3,
        "tokens_per_second": running / found["step"],
    }


def features_off(bench: Bench, shape: str, sizes: Sizes) -> Figures:
    """Steps of the model without graphs, and with torch's operations in the place of kernels."""
    model: Any = bench.model(shape)
    batches = {
        "decode, batch 1": decode_batch(model.layout, 1, 0, sizes.prompt),
        f"decode, batch {sizes.many}": decode_batch(model.layout, sizes.many, 0, sizes.context),
        "tree": decode_batch(model.layout, sizes.many, sizes.prefix, 0),
    }
    chosen = {"_operations": model._operations, "_replays": model._replays}
    kinds = {
        "as it is": chosen,
        "no graphs": chosen | {"_replays": None},
        "torch": {"_operations": TorchOperations(model.config, model.device, model.dtype), "_replays": None},
    }
    found: Figures = {name: {} for name in batches}
    try:
        for kind, parts in kinds.items():
            for part, value in parts.items():
                setattr(model, part, value)
            for name, batch in batches.items():
                seconds = bench.clock.median(lambda batch=batch: model.forward(batch), _WARM_UPS)
                found[name][f"{kind}, ms"] = seconds * 1e3
    finally:
        for part, value in chosen.items():
            setattr(model, part, value)
    return found


def engine_options(bench: Bench, shape: str, sizes: Sizes, steps: int) -> Figures:
    """Engine steps below one prefix, as they are, with tree attention off, and with one step after the other."""
    model = bench.model(shape)
    kinds: dict[str, dict[str, Any]] = {
        "as it is": {},
        "tree_attention=False": {"tree_attention": False},
        "pipelined=False": {"pipelined": False},
    }
    found: Figures = {}
    for name, options in kinds.items():
        timed = TimedModel(model, bench.clock)
        taken = decode_steps(timed, sizes.many, steps, GREEDY, shared=sizes.prefix, **options)
        found[name] = {"step_ms": taken["step"] * 1e3, "model_ms": taken["forward"] * 1e3}
    return found


def peer(bench: Bench, shape: str, sizes: Sizes, *, compiled: bool) -> Figures:
    """transformers' times of the same, and how many times ours they are."""
    bench.drop()
    other = Peer(shape, bench.device, compiled=compiled)
    found: Figures = {"decode, batch 1": {"ms": other.decode(bench.clock, 1, sizes.prompt + GENERATED) * 1e3}}
    if not compiled:  # each shape would be compiled anew
        name = f"decode, batch {sizes.many}"
        found[name] = {"ms": other.decode(bench.clock, sizes.many, sizes.context + GENERATED) * 1e3}
        found["prefill"] = {"ms": other.prefill(bench.clock, sizes.prefill) * 1e3}
    for name, figures in found.items():
        ours = bench.runs.get(f"{shape}: {name}", {}).get("ms")
        figures["over_ours"] = None if ours is None else figures["ms"] / ours
    return found


def sections(bench: Bench, shapes: list[str], sizes: Sizes, *, quick: bool) -> dict[str, Section]:
    """All that is measured, in this order."""
    steps = 8 if sizes is SMALL else 24 if quick else 64
    found = {"rates": Section(partial(rates, bench, sizes), 60)}
    for shape in shapes:
        parts: dict[str, Callable[[], Figures]] = {
            "decode, batch 1": partial(decode, bench, shape, 1, 0, sizes.prompt),
            f"decode, batch {sizes.many}": partial(decode, bench, shape, sizes.many, 0, sizes.context),
            "prefill": partial(prefill, bench, shape, sizes.prefill),
            "tree": partial(tree, bench, shape, sizes),
            "growth": partial(growth, bench, shape, sizes),
            **{f"engine, {count}": partial(engine, bench, shape, count, steps, GREEDY) for count in sizes.running},
            f"engine, {sizes.running[-1]} drawn": partial(engine, bench, shape, sizes.running[-1], steps, DRAWN),
            "features off": partial(features_off, bench, shape, sizes),
            "engine options": partial(engine_options, bench, shape, sizes, steps),
            "8 bits": partial(eight_bits, bench, shape, sizes),
        }
        found |= {f"{shape}: {name}": Section(run, 60) for name, run in parts.items()}
    for shape in shapes:
        found[f"{shape}: transformers"] = Section(partial(peer, bench, shape, sizes, compiled=False), 90)
    if bench.device.type == "cuda":
        for shape in reversed(shapes):  # the smaller is compiled sooner
            name = f"{shape}: transformers, compiled"
            found[name] = Section(partial(peer, bench, shape, sizes, compiled=True), 120)
    return found


def bars(runs: Runs, shapes: list[str], sizes: Sizes) -> dict[str, Bar]:
    """The figures that were named beforehand."""
    found: dict[str, Bar] = {}
    for shape in shapes:

        def figure(section: str, name: str, scale: float = 1.0, shape: str = shape) -> float | None:
            value = runs.get(f"{shape}: {section}", {}).get(name)
            return None if value is None else value * scale

        found |= {
            f"{shape}: decode, batch 1": Bar(figure("decode, batch 1", "share", 100), 80, "% of bandwidth", False),
            f"{shape}: decode, {sizes.many} x {sizes.context}": Bar(
                figure(f"decode, batch {sizes.many}", "share", 100), 75, "% of bandwidth", False
            ),
            f"{shape}: prefill of {sizes.prefill}": Bar(figure("prefill", "share", 100), 55, "% of matrix rate", False),
            f"{shape}: {sizes.many} below {sizes.prefix}": Bar(
                figure("tree", "over_short"), 1.3, f"x below {sizes.prompt}"
            ),
            f"{shape}: the same read by each": Bar(figure("tree", "flat_over_tree"), 1.8, "x of the tree", False),
            f"{shape}: engine beside the model": Bar(
                figure(f"engine, {sizes.running[-1]}", "beside_share", 100), 5, f"% of a step of {sizes.running[-1]}"
            ),
        }
    return found


def main() -> None:
    """Measure, and print the bars."""
    arguments = _arguments()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here; --device cpu --shapes tiny shows that everything runs")
    sizes = SMALL if arguments.shapes == ["tiny"] else Sizes()
    ends_at = arguments.ends_at or time.time() + arguments.seconds
    find_bars = partial(bars, shapes=arguments.shapes, sizes=sizes)
    journal = Journal(Path(arguments.json), _about(device), find_bars, is_resumed=arguments.ends_at is not None)
    seconds = 0.02 if sizes is SMALL else 0.5 if arguments.quick else 1.5
    bench = Bench(device, seconds, journal.runs)
    run_sections(
        sections(bench, arguments.shapes, sizes, quick=arguments.quick),
        journal,
        ends_at=ends_at,
        restart=partial(_restart, arguments, ends_at),
        is_usable=partial(_is_usable, device),
    )
    print_runs(journal.runs)
    print_bars(find_bars(journal.runs))
    print(f"written to {arguments.json}")
    if any("error" in figures for figures in journal.runs.values()):
        raise SystemExit("not everything could be measured; the errors are in the file")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="ramify on a GPU")
    parser.add_argument("--json", required=True, metavar="FILE", help="write the figures here, after every section")
    parser.add_argument("--seconds", type=float, default=570.0, help="when all must have ended")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to see that everything runs")
    parser.add_argument("--shapes", nargs="+", choices=list(CONFIGS), default=["llama-3-8b", "qwen3-0.6b"])
    parser.add_argument("--ends-at", type=float, help=argparse.SUPPRESS)  # of a process that goes on for another
    return parser.parse_args()


def _restart(arguments: argparse.Namespace, ends_at: float) -> None:
    """Goes on in a fresh process, in the place of this one."""
    sys.stdout.flush()
    command = [sys.executable, "-m", "benchmarks.gpu", "--json", arguments.json, "--ends-at", str(ends_at)]
    command += ["--device", arguments.device, "--shapes", *arguments.shapes]
    os.execv(sys.executable, command + ["--quick"] * arguments.quick)


def _is_usable(device: torch.device) -> bool:
    """Whether the device still takes work."""
    if device.type != "cuda":
        return True
    try:
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError:
        return False
    return True


def _about(device: torch.device) -> Figures:
    about = machine() | {"torch": torch.__version__, "device": str(device)}
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        about |= {"gpu": found.name, "memory_bytes": found.total_memory, "cuda": torch.version.cuda}
    return about


def print_runs(runs: Runs) -> None:
    """A line for each section, and for each part of those that have parts."""
    for name, figures in runs.items():
        parts = {part: value for part, value in figures.items() if isinstance(value, dict)}
        rest = {part: value for part, value in figures.items() if part not in parts and part != "traceback"}
        print(f"{name:40} {_line(rest)}")
        for part, values in parts.items():
            print(f"  {part:38} {_line(values)}")


def _line(figures: Figures) -> str:
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()
    )


if __name__ == "__main__":
    main()
