"""The Triton kernels against torch's operations: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

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
from ramify.runtime.models.operations import Operations, TorchOperations
from ramify.runtime.pool import KVLayout, KVPool
from torch import Tensor

from .gpu_kernels import DEVICE, need_triton
from .trees import random_tree

need_triton()
from ramify.runtime.models.triton_operations import TritonOperations  # noqa: E402

# The interpreter computes with numpy, which warns of infinities that are meant.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DTYPES = [torch.float32, torch.bfloat16]
# In bfloat16 torch rounds after every operation, the kernels once.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 6e-2}
NUM_LAYERS = 2
HEADS = [(1, 1), (2, 2), (4, 2), (6, 2), (5, 1), (8, 1), (21, 1)]


def config(num_heads: int, num_kv_heads: int, head_dim: int) -> configs.ModelConfig:
    """Of which the operations read these fields and the norm's epsilon."""
    fields = dict.fromkeys((field.name for field in dataclasses.fields(configs.ModelConfig)), None)
    named = {"num_heads": num_heads, "num_kv_heads": num_kv_heads, "head_dim": head_dim, "norm_eps": 1e-5}
    return configs.ModelConfig(**(fields | named))  # type: ignore[arg-type]


def pair(
    shape: configs.ModelConfig, dtype: torch.dtype, num_processors: int | None = None
) -> tuple[Operations, Operations]:
    return TritonOperations(shape, DEVICE, num_processors), TorchOperations(shape, DEVICE, dtype)


def layout(shape: configs.ModelConfig, dtype: torch.dtype) -> KVLayout:
    return KVLayout(NUM_LAYERS, shape.num_kv_heads, shape.head_dim, dtype, DEVICE)


def factors(num_rows: int, head_dim: int) -> Tensor:
    size = (num_rows, 1, head_dim // 2)
    return torch.polar(torch.rand(size) + 0.5, torch.rand(size) * 6).to(DEVICE)


def projected(num_rows: int, shape: configs.ModelConfig, dtype: torch.dtype) -> Tensor:
    return torch.randn(num_rows, (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim).to(DEVICE, dtype)


def qk_weight(shape: configs.ModelConfig, dtype: torch.dtype) -> Tensor:
    return (torch.rand(shape.num_heads + shape.num_kv_heads, shape.head_dim) + 0.5).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=6 if DEVICE.type == "cpu" else 60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    heads=st.sampled_from(HEADS),
    head_dim=st.sampled_from([2, 8, 16, 20, 64, 128]),
    has_norm=st.booleans(),
)
def test_random_trees(dtype: torch.dtype, seed: int, heads: tuple[int, int], head_dim: int, has_norm: bool) -> None:
    shape = config(*heads, head_dim)
    tree = random_tree(seed, layout(shape, dtype))
    batch, num_rows = tree.batch(), len(tree.rows)
    turns, layer = factors(num_rows, head_dim), NUM_LAYERS - 1
    fused, weight = projected(num_rows, shape, dtype), qk_weight(shape, dtype) if has_norm else None
    stored, attended = [], []
    for operations in pair(shape, dtype):
        attended.append(operations.step(batch, turns).attend(fused.clone(), layer, weight))
        stored.append([write.extent.span(write.offset, write.stop - write.start)[layer] for write in tree.writes])
        stored[-1] = [numbers.clone() for numbers in stored[-1]]
    torch.testing.assert_close(stored[0], stored[1], rtol=0.02, atol=TOLERANCE[dtype])
    torch.testing.assert_close(attended[0], attended[1], rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("dtype", "heads", "head_dim", "length", "num_new"),
    [
        (torch.float32, (4, 1), 64, 280, 100),
        (torch.bfloat16, (2, 2), 128, 65, 64),
        (torch.bfloat16, (3, 1), 128, 700, 1),
        (torch.float32, (8, 1), 64, 129, 5),
    ],
)
def test_causal_chunks_with_a_prefix_and_large_scores(
    dtype: torch.dtype, heads: tuple[int, int], head_dim: int, length: int, num_new: int
) -> None:
    """Some are cut into ranges of keys, of which some rows see nothing."""
    torch.manual_seed(length)
    shape = config(*heads, head_dim)
    pool = KVPool(layout(shape, dtype), 10_000)
    prefix, tail = pool.allocate(300), pool.allocate(length)
    prefix.data.normal_().mul_(20 if dtype == torch.float32 else 1)
    tail.data.normal_()
    reads = [Read(prefix, 300, [(0, num_new)], False), Read(tail, length, [(0, num_new)], True)]
    old = length - num_new
    positions = torch.arange(num_new) + 300 + old
    batch = Batch(positions, positions, [Write(tail, old, 0, num_new)], reads, torch.tensor([0]))
    fused, turns = projected(num_new, shape, dtype), factors(num_new, head_dim)
    by_kernels, plain = (
        each.step(batch, turns).attend(fused.clone(), 1, None) for each in pair(shape, dtype, num_processors=80)
    )
    assert by_kernels.isfinite().all()
    torch.testing.assert_close(by_kernels, plain, rtol=1e-3, atol=6e-2 if dtype == torch.bfloat16 else 1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [3, 64, 1000, 3072])
@pytest.mark.parametrize("num_rows", [1, 5])
def test_norms_and_gates(dtype: torch.dtype, size: int, num_rows: int) -> None:
    torch.manual_seed(size)
    kernels, plain = pair(config(2, 1, 8), dtype)
    rows, weight = (torch.randn(num_rows, size) * 30).to(DEVICE, dtype), torch.randn(size).to(DEVICE, dtype)
    gate_up = (torch.randn(num_rows, 2 * size) * 30).to(DEVICE, dtype)
    gate_up[0, 0] = -1e4
    near = {"rtol": 2e-2, "atol": 1e-3} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(kernels.norm(rows, weight), plain.norm(rows, weight), **near)
    torch.testing.assert_close(kernels.norm(rows.t().contiguous().t(), weight), plain.norm(rows, weight), **near)
    torch.testing.assert_close(kernels.gate(gate_up), plain.gate(gate_up.clone()), **near)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_are_none_stay_in_their_sequence(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    shape = config(4, 2, 16)
    kernels, _ = pair(shape, dtype, num_processors=80)
    pool = KVPool(layout(shape, dtype), 1000)
    shared, tails = pool.allocate(200), [pool.allocate(4) for _ in range(3)]
    shared.data.normal_()
    fused = projected(3, shape, dtype)
    fused[1, 3] = float("nan")
    reads = [Read(shared, 200, [(0, 3)], False), *(Read(tail, 1, [(i, i + 1)], True) for i, tail in enumerate(tails))]
    writes = [Write(tail, 0, i, i + 1) for i, tail in enumerate(tails)]
    positions = torch.full((3,), 200)
    attended = kernels.step(Batch(positions, positions, writes, reads, positions), factors(3, 16)).attend(
        fused, 0, None
    )
    assert attended[1].isnan().any() and attended[[0, 2]].isfinite().all()
    rows = torch.zeros(2, 32, dtype=dtype, device=DEVICE)
    rows[1, 3] = float("nan")
    normed, gated = kernels.norm(rows, torch.ones(32, dtype=dtype, device=DEVICE)), kernels.gate(rows)
    assert normed[1].isnan().all() and gated[1].isnan().any()
    assert normed[0].isfinite().all() and gated[0].isfinite().all()


@pytest.mark.skipif(DEVICE.type != "cuda", reason="no CUDA device")
def test_they_are_chosen_on_a_gpu() -> None:
    assert isinstance(choose_operations(config(2, 1, 8), DEVICE, torch.bfloat16), TritonOperations)


def test_they_compile_for_hopper(tmp_path: Path) -> None:
    """Without a GPU: what Triton makes of them for one, in another process, which has no interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    program = Path(__file__).with_name("compile_kernels.py")
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    names = ["_turn_and_store", "_attend_items", "_attend_items", "_merge_parts", "_norm", "_gate"]
    assert [line.split()[0] for line in lines] == names, "compiled again for other layers or numbers of rows"
    assert "wgmma=True" in lines[1] and "16_byte_copies=True" in lines[1] and "16_byte_copies=True" in lines[2]
