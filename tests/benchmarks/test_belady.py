"""Belady's misses on sequences small enough to count by hand."""

from __future__ import annotations

from benchmarks.belady import Admission, End, belady_misses


def served(*prompts: str) -> list[Admission | End]:
    events: list[Admission | End] = []
    for key, prompt in enumerate(prompts):
        tokens = tuple(map(ord, prompt))
        events += [Admission(key, tokens, len(tokens) - 1, 0, 0), End(key, tokens)]
    return events


def test_with_room_for_all_only_what_is_new_is_missed():
    assert belady_misses(served("abcd", "abce", "abcd"), 100) == 4 + 1 + 1


def test_what_is_used_again_last_goes_first():
    prompts = ("aaaa", "bbbb", "cccc", "aaaa", "bbbb")
    # The last token of a prompt is computed anyway, so those of a and b go first, then two of b.
    assert belady_misses(served(*prompts), 8) == 4 + 4 + 4 + 1 + 3
    assert belady_misses(served(*prompts), 12) == 4 + 4 + 4 + 1 + 1


def test_what_runs_stays_and_what_it_reserves_is_not_there():
    tokens = tuple(map(ord, "aaaa"))
    first, again = Admission(0, tokens, 3, 6, 0), Admission(2, tokens, 3, 0, 0)
    other = Admission(1, tuple(map(ord, "bb")), 1, 0, 0)
    assert belady_misses([first, other, again], 12) == 4 + 2 + 1
