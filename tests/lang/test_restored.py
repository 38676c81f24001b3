"""What was written of a finished row comes back as what the program had given."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.lang.restored import restored


class Mood(enum.Enum):
    GLAD = "glad"


@dataclass
class Verdict:
    claim: str
    scores: tuple[int, ...]
    mood: Mood = Mood.GLAD


class Place(msgspec.Struct):
    name: str


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str = "nobody"


@dataclass
class Partly:
    shown: int
    hidden: int = field(default=0, repr=False)


@rf.program
def listed(s, n: int) -> list[Verdict]:  # type: ignore[no-untyped-def]
    s += rf.gen("x")
    s["place"] = Place(s["x"])
    return [Verdict(s["x"], (n, 2))]


@rf.program
def untold(s, n: int):  # type: ignore[no-untyped-def]
    s += rf.gen("x")
    return Verdict(s["x"], (n, 2))


@pytest.mark.parametrize("program", [listed, untold])
def test_resumed_values_are_what_the_program_returned(program: rf.Program, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    rows = [{"n": 1}, {"n": 2}]
    first = program.run_batch(rows, backend=ScriptedBackend(), out=out)
    again = program.run_batch(rows, backend=ScriptedBackend(), out=out, resume=True)
    assert [run.value for run in again] == [run.value for run in first]
    assert [run.vars for run in again] == [run.vars for run in first]
    assert json.loads(out.read_text().splitlines()[0])["value"] in (
        [{"claim": first[0]["x"], "scores": [1, 2], "mood": "glad"}],
        {"claim": first[0]["x"], "scores": [1, 2], "mood": "glad"},
    )


@pytest.mark.parametrize(
    ("written", "returns", "value"),
    [
        ([1, 2], tuple[int, ...], (1, 2)),
        ({"1": 2}, dict[int, int], {1: 2}),
        ([1, 2], set[int], {1, 2}),
        ({"claim": "a", "scores": [1], "mood": "glad"}, Verdict | None, Verdict("a", (1,))),
        ({"claim": "a"}, Verdict, {"claim": "a"}),  # an earlier form of it
        ({"first_name": "Ann"}, Renamed, {"first_name": "Ann"}),
        ({"shown": 1}, Partly, {"shown": 1}),
        ("no number", int, "no number"),
        (None, Verdict, None),
        ([1], "no type", [1]),
    ],
)
def test_a_value_is_only_made_what_would_be_written_the_same(written: Any, returns: Any, value: Any) -> None:
    made = restored({"value": written, "vars": {}}, returns)["value"]
    assert made == value and type(made) is type(value)


def test_a_file_names_no_other_classes_than_records() -> None:
    for name in ("builtins:str", "os:system", "no.module:X", "pathlib:Path", "enum:"):
        record = {"value": "ls", "vars": {"x": "ls"}, "types": {"value": name, "vars": {"x": name}}}
        assert restored(record, None) == record
