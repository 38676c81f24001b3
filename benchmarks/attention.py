"""Attention of decoding branches below a shared prefix: read once for all of them, or by each on its own.

`python -m benchmarks.attention [--quick] [--threads N] [--json FILE]`. One layer of Qwen3-0.6B's shape (16 heads, 8 of
keys, 128 wide) in bfloat16: B branches with S shared and T own tokens, a new token each. *Tree* meets the prefix once
for all branches, *apart* once per branch: the same kernels on the same KV, in turn. Times are medians of the rounds, by
one thread's processor time where there is one, and their ratio is the median of the rounds' ratios. For the largest
shapes the same with torch's operations. KV of several layers goes by in turn, as in a model.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from ramify.runtime.batch import Batch, Read, Write
from ramify.runtime.models.choice import choose_operations
from ramify.runtime.models.config import ModelConfig
from ramify.runtime.models.operations import Operations, Step, TorchOperations
from ramify.runtime.models.rope import RopeConfig
from ramify.runtime.pool import KVLayout, KVPool

from .report import Bar, machine, median, say, write

HEADS, KV_HEADS, HEAD_DIM, LAYERS = 16, 8, 128, 4
BRANCHES = (1, 2, 8, 32)
SHARED = (8, 64, 512)
OWN = (8, 128)
# Where torch's operations are measured too.
LARGE = {(8, 512, 128), (32, 512, 128)}


CONFIG = ModelConfig(
    architecture="Qwen3ForCausalLM",
    vocab_size=151_936,
    hidden_size=1024,
    intermediate_size=3072,
    num_layers=LAYERS,
    num_heads=HEADS,
    num_kv_heads=KV_HEADS,
    head_dim=HEAD_DIM,
    context_length=40_960,
    norm_eps=1e-6,
    rope=RopeConfig("default", 40_960, {"rope_theta": 1e6}),
    tied_embeddings=True,
    qkv_bias=False,
    output_bias=False,
    mlp_bias=False,
    qk_norm=True,
    dtype=torch.bfloat16,
)


def batch(layout: KVLayout, branches: int, shared: int, own: int, *, is_tree: bool) -> Batch:
    """One new token for each branch; random KV."""
    pool = KVPool(layout, shared + branches * (own + 1))
    prefix, tails = pool.allocate(shared), [pool.allocate(own + 1) for _ in range(branches)]
    for extent in (prefix, *tails):
        extent.data.normal_()
    rows = [(row, row + 1) for row in range(branches)]
    reads = (
        [Read(prefix, shared, [(0, branches)], False)]
        if is_tree
        else [Read(prefix, shared, [row], False) for row in rows]
    )
    reads += [Read(tail, own + 1, [row], False) for tail, row in zip(tails, rows, strict=True)]
    writes = [Write(tail, own, *row) for tail, row in zip(tails, rows, strict=True)]
    positions = torch.full((branches,), shared + own)
    return Batch(torch.zeros_like(positions), positions, writes, reads, torch.arange(branches))


def step(operations: Operations, branches: int, shared: int, own: int, *, is_tree: bool) -> Step:
    """Such a batch, ready for its layers."""
    layout = KVLayout(LAYERS, KV_HEADS, HEAD_DIM, torch.bfloat16, torch.device("cpu"))
    factors = torch.polar(torch.ones(branches, 1, HEAD_DIM // 2), torch.rand(branches, 1, HEAD_DIM // 2))
    return operations.step(batch(layout, branches, shared, own, is_tree=is_tree), factors)


def measure(steps: dict[str, Step], branches: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds of a layer in each of the rounds, in which all take turns, the first of them by turns too."""
    fused = torch.randn(branches, (HEADS + 2 * KV_HEADS) * HEAD_DIM).bfloat16()
    weight = torch.ones(HEADS + KV_HEADS, HEAD_DIM, dtype=torch.bfloat16)
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        for name in list(steps) if number % 2 else reversed(steps):
            inputs = [fused.clone() for _ in range(LAYERS)]
            begun = clock()
            for layer, one in enumerate(inputs):
                steps[name].attend(one, layer, weight)
            taken[name].append((clock() - begun) * 1e6 / LAYERS)
    return taken


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="attention below shared prefixes: once for all, or each on its own")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch's threads")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    about = machine()
    device, dtype = torch.device("cpu"), torch.bfloat16
    native, plain = choose_operations(CONFIG, device, dtype), TorchOperations(CONFIG, device, dtype)
    if isinstance(native, TorchOperations):
        raise SystemExit("the compiled kernels are not to be had here")
    runs: list[dict[str, Any]] = []
    bars: dict[str, Bar] = {}
    print(f"{'branches':>8} {'shared':>6} {'own':>5} {'tree':>8} {'apart':>8} us ratio  torch {'tree':>8} {'apart':>8}")
    for branches, shared, own in ((b, s, t) for b in BRANCHES for s in SHARED for t in OWN):
        kinds = {"tree": (native, True), "apart": (native, False)}
        if (branches, shared, own) in LARGE:
            kinds |= {"torch tree": (plain, True), "torch apart": (plain, False)}
        steps = {name: step(by, branches, shared, own, is_tree=is_tree) for name, (by, is_tree) in kinds.items()}
        taken = measure(steps, branches, 20 if arguments.quick else 100)
        found = {name: median(times) for name, times in taken.items()}
        ratio = median(tree / apart for tree, apart in zip(taken["tree"], taken["apart"], strict=True))
        shape = {"branches": branches, "shared": shared, "own": own, "threads": arguments.threads}
        runs.append({**shape, **found, "ratio": ratio})
        line = f"{branches:8} {shared:6} {own:5} {found['tree']:8.0f} {found['apart']:8.0f} {ratio:6.2f}"
        if "torch tree" in found:
            line += f"             {found['torch tree']:8.0f} {found['torch apart']:8.0f}"
            bars[f"{branches} branches below {shared}: tree / torch's tree"] = Bar(
                found["tree"] / found["torch tree"], 1.0, "x"
            )
        print(line, flush=True)
    worst = max(run["ratio"] for run in runs)
    bars["tree / apart, the worst shape"] = Bar(worst, 1.02, "x")
    say(f"{len(runs)} shapes")
    write(arguments.json, runs, bars, about)


if __name__ == "__main__":
    main()
