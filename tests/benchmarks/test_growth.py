"""What benchmarks.growth measures is what it says."""

from __future__ import annotations

from benchmarks.growth import _filled_tree


def test_the_tree_has_the_prompts_and_so_many_tokens() -> None:
    filled, prompts = _filled_tree(5_000)
    filled.check()
    assert 5_000 <= filled.num_tokens < 8_000
    assert all(filled.match_len(prompt) == len(prompt) == 612 for prompt in prompts)
