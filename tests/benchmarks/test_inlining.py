"""What the pass `inline` is good for when memory is short: KV that helpers have done with makes room."""

from __future__ import annotations

import ramify as rf

from benchmarks.memory import measure


def note_of(reader, part):
    reader += rf.user(part) + rf.assistant(rf.gen("note", max_tokens=24, ignore_eos=True))
    return reader["note"]


@rf.program
def minutes(s, parts):
    s += rf.system("You keep the minutes of a meeting. Answer in a few words.")
    for part in parts:
        note = note_of(s.copy(), part)
        s += rf.user("Noted: " + note) + rf.assistant(rf.gen("reply", max_tokens=8, ignore_eos=True))
    return s["reply"]


def said(row: int, part: int) -> str:
    words = " ".join(f"word{(row * part + place) % 89}" for place in range(30))
    return f"Person {row * 7 + part} says: {words}"


def test_half_of_the_memory_is_enough_when_calls_are_inlined() -> None:
    rows = [{"parts": [said(row, part) for part in range(6)]} for row in range(12)]
    ample = measure("ample", minutes, rows, 1 << 20, 1.0)
    inlined = measure("inlined", minutes, rows, ample.needed // 2, 0.5)
    called = measure("called", minutes.options(disable="inline"), rows, ample.needed // 2, 0.5)
    assert inlined.computed == inlined.bound == ample.computed
    assert called.computed > 1.03 * inlined.computed
