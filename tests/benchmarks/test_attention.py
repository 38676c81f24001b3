"""The benchmark of attention measures the same attention both ways."""

from __future__ import annotations

import pytest
import torch
from ramify.runtime.models.choice import choose_operations
from ramify.runtime.models.operations import TorchOperations

from benchmarks.attention import CONFIG, HEAD_DIM, HEADS, KV_HEADS, step


@pytest.mark.parametrize("is_plain", [True, False])
def test_tree_and_apart_give_the_same(is_plain: bool) -> None:
    device = torch.device("cpu")
    choose = TorchOperations if is_plain else choose_operations
    operations = choose(CONFIG, device, torch.bfloat16)
    fused = torch.randn(3, (HEADS + 2 * KV_HEADS) * HEAD_DIM).bfloat16()
    results = []
    for is_tree in (True, False):
        torch.manual_seed(0)
        results.append(step(operations, 3, 70, 5, is_tree=is_tree).attend(fused.clone(), 1, None))
    torch.testing.assert_close(results[0], results[1], rtol=0.02, atol=0.02)
