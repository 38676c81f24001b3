"""Compiles the kernels for a Hopper GPU, which need not be here, and heads as those of Llama-3-8B; prints a line each.

Run by test_kernels.py in a process of its own.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from typing import Any

import torch
from ramify.runtime.batch import Batch, Read, Write
from ramify.runtime.models import config as configs
from ramify.runtime.pool import KVLayout, KVPool
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

HEADS, KV_HEADS, SIZE = 32, 8, 128
CPU = torch.device("cpu")


class Hopper:
    """Answers for a driver what compiling asks."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


compiled: dict[int, tuple[str, Any]] = {}


def compiles(kernel: Any, grid: object) -> Any:
    """In place of launching."""

    def launch(*arguments: Any, **options: Any) -> None:
        if "OPERANDS" in options:
            options["OPERANDS"] = None  # which is for the interpreter
        made = kernel.run(*arguments, grid=grid, warmup=True, **options)
        compiled.setdefault(id(made), (kernel.__name__, made))

    return launch


def main() -> None:
    driver.set_active(Hopper())
    JITFunction.__getitem__ = compiles
    from ramify.runtime.models.triton_operations import TritonOperations

    fields = dict.fromkeys((field.name for field in dataclasses.fields(configs.ModelConfig)), None)
    named = {"num_heads": HEADS, "num_kv_heads": KV_HEADS, "head_dim": SIZE, "norm_eps": 1e-5}
    operations = TritonOperations(configs.ModelConfig(**(fields | named)), CPU)  # type: ignore[arg-type]
    pool = KVPool(KVLayout(1, KV_HEADS, SIZE, torch.bfloat16, CPU), 1000)
    for num_rows in (34, 17):
        shared, alone, chunk = pool.allocate(130), pool.allocate(3), pool.allocate(40)
        numbers = torch.zeros(num_rows, dtype=torch.int64)
        writes = [Write(alone, 0, 0, 1), Write(chunk, 0, 1, num_rows)]
        reads = [
            Read(shared, 130, [(0, num_rows)], False),
            Read(alone, 1, [(0, 1)], True),
            Read(chunk, num_rows - 1, [(1, num_rows)], True),
        ]
        factors = torch.zeros(num_rows, 1, SIZE // 2, dtype=torch.complex64)
        step = operations.step(Batch(numbers, numbers, writes, reads, numbers), factors)
        for layer in (0, 1, 16):
            fused = torch.zeros(num_rows, (HEADS + 2 * KV_HEADS) * SIZE, dtype=torch.bfloat16)
            step.attend(fused, layer, torch.zeros(HEADS + KV_HEADS, SIZE, dtype=torch.bfloat16))
        operations.norm(torch.zeros(num_rows, 4096, dtype=torch.bfloat16), torch.zeros(4096, dtype=torch.bfloat16))
        operations.gate(torch.zeros(num_rows, 28672, dtype=torch.bfloat16))
    for name, made in compiled.values():
        code = made.asm["ptx"]
        copies = set(re.findall(r"cp\.async\.c[ag]\.shared\.global [^;]*?, 0x([0-9a-f]+)", code))
        print(
            name,
            f"wgmma={'wgmma.mma_async' in code}",
            f"16_byte_copies={copies == {'10'}}",
            f"shared_bytes={made.metadata.shared}",
        )


if __name__ == "__main__":
    sys.exit(main())
