"""The heads of a model as kernels see them."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import torch


@dataclass(frozen=True, slots=True)
class HeadShape:
    """Query heads, key heads (as many value heads), and the numbers of each."""

    num_heads: int
    num_kv_heads: int
    head_dim: int

    @property
    def group(self) -> int:
        """Query heads that share a key head."""
        return self.num_heads // self.num_kv_heads

    @property
    def padded_dim(self) -> int:
        """A head's numbers as kernels hold them: a power of two, and enough for a matrix unit."""
        return max(16, 1 << (self.head_dim - 1).bit_length())

    def alignment(self, dtype: torch.dtype) -> int:
        """Bytes that the address of any head of any token is a multiple of, as far as it helps to know."""
        return gcd(16, self.head_dim * dtype.itemsize)
