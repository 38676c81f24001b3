"""Draws on a device: those of the CPU, but where a point lies between two tokens, and the same in any company."""

from __future__ import annotations

import torch
from ramify.runtime.sampler import _invert

SIZE = 20_000


def on_edges(weights: torch.Tensor) -> torch.Tensor:
    """For each row a point just behind the end of a block of 128 weights: nearer than float32 can tell."""
    sums = weights.double().cumsum(-1)
    ends = torch.arange(len(weights)) * 128 % (SIZE - 128) + 127
    return sums[torch.arange(len(weights)), ends] / sums[:, -1] * (1 + 1e-11)


def test_a_draw_does_not_depend_on_the_number_of_rows(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(6)
    weights = torch.rand(256, SIZE, generator=generator) ** 8
    points = on_edges(weights)
    weights, points = weights.to(device), points.to(device)
    together = _invert(weights, points)
    for count in (1, 2, 17):
        parts = [_invert(weights[i : i + count], points[i : i + count]) for i in range(0, 256, count)]
        assert torch.equal(torch.cat(parts), together)


def test_draws_are_those_of_exact_sums(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(7)
    weights = torch.rand(64, SIZE, generator=generator) ** 8
    points = torch.rand(64, dtype=torch.float64, generator=generator)
    got = _invert(weights.to(device), points.to(device)).cpu()
    sums = weights.double().cumsum(-1)
    assert torch.equal(got, torch.searchsorted(sums, points[:, None] * sums[:, -1:], right=True)[:, 0])
