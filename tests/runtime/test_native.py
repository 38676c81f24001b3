"""The compiled CPU kernels against torch's operations."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ramify.runtime.batch import Batch, Read, Write
from ramify.runtime.models import config as configs
from ramify.runtime.models.choice import choose_operations
from ramify.runtime.models.native import NativeOperations
from ramify.runtime.models.native_build import library
from ramify.runtime.models.operations import Operations, TorchOperations
from ramify.runtime.pool import KVLayout, KVPool
from torch import Tensor

from .trees import random_tree

DTYPES = [torch.float32, torch.bfloat16]
# In bfloat16 torch rounds after every operation, the kernels once.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 6e-2}
NUM_LAYERS = 2


@pytest.fixture(scope="module")
def kernels() -> ctypes.CDLL:
    found = library()
    if found is None:
        pytest.skip("no C++ compiler is here, or the kernels are switched off")
    return found


def config(num_heads: int, num_kv_heads: int, head_dim: int) -> configs.ModelConfig:
    """Of which the operations read these fields and the norm's epsilon."""
    fields = dict.fromkeys((field.name for field in dataclasses.fields(configs.ModelConfig)), None)
    named = {"num_heads": num_heads, "num_kv_heads": num_kv_heads, "head_dim": head_dim, "norm_eps": 1e-5}
    return configs.ModelConfig(**(fields | named))  # type: ignore[arg-type]


def pair(shape: configs.ModelConfig, dtype: torch.dtype, kernels: ctypes.CDLL) -> tuple[Operations, Operations]:
    return NativeOperations(shape, dtype, kernels), TorchOperations(shape, torch.device("cpu"), dtype)


def layout(shape: configs.ModelConfig, dtype: torch.dtype) -> KVLayout:
    return KVLayout(NUM_LAYERS, shape.num_kv_heads, shape.head_dim, dtype, torch.device("cpu"))


def factors(num_rows: int, head_dim: int) -> Tensor:
    return torch.polar(torch.rand(num_rows, 1, head_dim // 2) + 0.5, torch.rand(num_rows, 1, head_dim // 2) * 6)


def projected(num_rows: int, shape: configs.ModelConfig, dtype: torch.dtype) -> Tensor:
    return torch.randn(num_rows, (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim).to(dtype)


def qk_weight(shape: configs.ModelConfig, dtype: torch.dtype) -> Tensor:
    return (torch.rand(shape.num_heads + shape.num_kv_heads, shape.head_dim) + 0.5).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    heads=st.sampled_from([(1, 1), (2, 2), (4, 2), (6, 2), (3, 1), (21, 1)]),
    head_dim=st.sampled_from([2, 8, 16, 20, 64, 128]),
    has_norm=st.booleans(),
)
def test_random_trees(
    kernels: ctypes.CDLL, dtype: torch.dtype, seed: int, heads: tuple[int, int], head_dim: int, has_norm: bool
) -> None:
    shape = config(*heads, head_dim)
    native, plain = pair(shape, dtype, kernels)
    tree = random_tree(seed, layout(shape, dtype))
    batch, num_rows = tree.batch(), len(tree.rows)
    turns = factors(num_rows, head_dim)
    steps = native.step(batch, turns), plain.step(batch, turns)
    for layer in range(NUM_LAYERS):
        fused, weight = projected(num_rows, shape, dtype), qk_weight(shape, dtype) if has_norm else None
        stored, attended = [], []
        for step in steps:
            attended.append(step.attend(fused.clone(), layer, weight))
            stored += [
                [write.extent.span(write.offset, write.stop - write.start)[layer].clone() for write in tree.writes]
            ]
        torch.testing.assert_close(stored[0], stored[1], rtol=0.02, atol=TOLERANCE[dtype])
        torch.testing.assert_close(attended[0], attended[1], rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("length", "num_new"), [(1300, 650), (200, 200), (97, 96), (65, 64), (64, 1), (129, 5)])
def test_causal_chunks_and_large_scores(
    kernels: ctypes.CDLL, dtype: torch.dtype, length: int, num_new: int, num_threads: int
) -> None:
    torch.manual_seed(length)
    shape = config(4, 2, 16)
    pool = KVPool(layout(shape, dtype), 10_000)
    prefix, tail = pool.allocate(700), pool.allocate(length)
    prefix.data.normal_().mul_(20 if dtype == torch.float32 else 1)
    tail.data.normal_()
    reads = [Read(prefix, 700, [(0, num_new)], False), Read(tail, length, [(0, num_new)], True)]
    old = length - num_new
    positions = torch.arange(num_new) + 700 + old
    batch = Batch(positions, positions, [Write(tail, old, 0, num_new)], reads, torch.tensor([0]))
    fused, turns = projected(num_new, shape, dtype), factors(num_new, 16)
    native, plain = (each.step(batch, turns).attend(fused.clone(), 1, None) for each in pair(shape, dtype, kernels))
    assert native.isfinite().all()
    torch.testing.assert_close(native, plain, rtol=1e-3, atol=6e-2 if dtype == torch.bfloat16 else 1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [3, 64, 1000, 3072])
@pytest.mark.parametrize("num_rows", [1, 5, 70])
def test_norms_and_gates(kernels: ctypes.CDLL, dtype: torch.dtype, size: int, num_rows: int) -> None:
    torch.manual_seed(size)
    native, plain = pair(config(2, 1, 8), dtype, kernels)
    rows, weight = (torch.randn(num_rows, size) * 30).to(dtype), torch.randn(size).to(dtype)
    gate_up = (torch.randn(num_rows, 2 * size) * 30).to(dtype)
    gate_up[0, 0] = -1e4
    near = {"rtol": 2e-2, "atol": 1e-3} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(native.norm(rows, weight), plain.norm(rows, weight), **near)
    torch.testing.assert_close(native.norm(rows.t().contiguous().t(), weight), plain.norm(rows, weight), **near)
    torch.testing.assert_close(native.gate(gate_up), plain.gate(gate_up.clone()), **near)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_those_beside_it(kernels: ctypes.CDLL, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    shape = config(6, 2, 32)
    native, _ = pair(shape, dtype, kernels)
    pool = KVPool(layout(shape, dtype), 10_000)
    shared, tails = pool.allocate(150), [pool.allocate(40) for _ in range(9)]
    for extent in (shared, *tails):
        extent.data.normal_()
    fused, turns, weight = projected(9, shape, dtype), factors(9, 32), qk_weight(shape, dtype)

    def attend(rows: list[int]) -> Tensor:
        writes = [Write(tails[row], 30 + row, i, i + 1) for i, row in enumerate(rows)]
        reads = [Read(tails[row], 31 + row, [(i, i + 1)], False) for i, row in enumerate(rows)]
        reads.insert(0, Read(shared, 150, [(0, len(rows))], False))
        positions = torch.tensor([180 + row for row in rows])
        batch = Batch(positions, positions, writes, reads, torch.tensor([0]))
        return native.step(batch, turns[rows]).attend(fused[rows], 1, weight)

    together = attend(list(range(9)))
    for row in range(9):
        assert torch.equal(attend([row])[0], together[row])
    gate_up, norm = torch.randn(9, 400).to(dtype), torch.randn(400).to(dtype)
    assert torch.equal(native.gate(gate_up)[4:5], native.gate(gate_up[4:5].clone()))
    assert torch.equal(native.norm(gate_up, norm)[4:5], native.norm(gate_up[4:5], norm))


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_are_none_stay_in_their_row(kernels: ctypes.CDLL, dtype: torch.dtype) -> None:
    native, _ = pair(config(2, 1, 8), dtype, kernels)
    rows = torch.zeros(2, 32, dtype=dtype)
    rows[1, 3] = float("nan")
    normed, gated = native.norm(rows, torch.ones(32, dtype=dtype)), native.gate(rows)
    assert normed[1].isnan().all() and gated[1].isnan().any()
    assert normed[0].isfinite().all() and gated[0].isfinite().all()


def test_choice() -> None:
    shape = config(2, 1, 8)
    assert isinstance(choose_operations(shape, torch.device("cpu"), torch.float16), TorchOperations)


PROGRAM = """
import logging, sys, torch
logging.basicConfig(stream=sys.stdout)
from ramify.runtime.models.native_build import library
print("found" if library() else "none")
"""


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"RAMIFY_NATIVE": "0"}, "none"),
        ({"CXX": "no-such-compiler"}, "no native CPU kernels, so decoding is slower"),
        ({"CXX": "false"}, "false -c"),
    ],
)
def test_without_kernels(tmp_path: Path, settings: dict[str, str], shown: str) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)} | settings
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120)
    assert shown in done.stdout and done.stdout.strip().endswith("none"), done.stderr


def test_they_are_compiled_once(kernels: ctypes.CDLL, tmp_path: Path) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    made = set()
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.stdout.strip() == "found", done.stdout + done.stderr
        (built,) = (tmp_path / "ramify").iterdir()
        made.add((built.name, built.stat().st_mtime_ns, built.stat().st_ino))
    assert len(made) == 1, "compiled again"
