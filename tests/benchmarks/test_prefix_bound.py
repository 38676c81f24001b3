"""The bound on prefill that the workloads benchmark compares with."""

from __future__ import annotations

from benchmarks.prefix_bound import Served, prefill_bound, prefill_tokens, prompt_tokens


def served(prompt: str, generated: str = "", cached: int = 0) -> Served:
    return Served([ord(c) for c in prompt], [ord(c) for c in generated], cached)


def test_shared_beginnings_count_once():
    requests = [served("abcd"), served("abce", cached=3), served("xyz")]
    assert prefill_bound(requests) == 4 + 1 + 3
    assert prefill_tokens(requests) == 4 + 1 + 3
    assert prompt_tokens(requests) == 11


def test_what_was_generated_is_there_but_for_its_last_token():
    assert prefill_bound([served("ab", "cde"), served("abcdef")]) == 2 + 2


def test_an_equal_prompt_computes_its_last_token():
    assert prefill_bound([served("abc"), served("abc"), served("ab")]) == 3 + 1 + 1


def test_a_score_computes_what_its_first_logits_need():
    shared = [ord(c) for c in "abcd"]
    scores = [Served([*shared, ord(c)], (), 0, matchable=3) for c in "xyx"]
    assert prefill_bound(scores) == 5 + 2 + 2
