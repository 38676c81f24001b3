"""Compiles the products with weights of 8 bits for a Hopper GPU, which need not be here; prints a line each.

Run by test_linear_kernel.py in a process of its own.
"""

from __future__ import annotations

import re
import sys

import torch
from compile_kernels import Hopper, compiled, compiles
from triton.runtime import driver
from triton.runtime.jit import JITFunction

OUTPUTS, INNER, PROCESSORS = 4096, 4096, 132


def main() -> None:
    driver.set_active(Hopper())
    JITFunction.__getitem__ = compiles
    from ramify.runtime.kernels.linear import byte_linear

    scale = torch.ones(OUTPUTS)
    for num_rows in (1, 2, 2048, 4096):
        rows, residual = (torch.zeros(num_rows, size, dtype=torch.bfloat16) for size in (INNER, OUTPUTS))
        for dtype in (torch.int8, torch.float8_e4m3fn):
            byte_linear(rows, torch.zeros(OUTPUTS, INNER).to(dtype), scale, None, residual, PROCESSORS)
    for name, made in compiled.values():
        code = made.asm["ptx"]
        copies = set(re.findall(r"cp\.async\.c[ag]\.shared\.global [^;]*?, 0x([0-9a-f]+)", code))
        print(name, f"wgmma={'wgmma.mma_async' in code}", f"16_byte_copies={copies == {'10'}}")


if __name__ == "__main__":
    sys.exit(main())
