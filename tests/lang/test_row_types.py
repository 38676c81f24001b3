"""Rows whose values are not of the annotated types are reported by number before anything runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import UsageError
from ramify.lang.cli import main


@dataclass
class Person:
    name: str


@rf.program
def ask(
    s,
    question: str,
    limit: int = 4,
    share: float | None = None,
    kind: Literal["long", "short"] = "long",
    names: list[str] = None,  # noqa: RUF013
    scores: dict[str, int] | None = None,
    person: Person | None = None,
    extra: Mapping[str, Any] | None = None,
):
    s += rf.user(question) + rf.assistant(rf.gen("a", max_tokens=3))
    return s["a"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"question": 3}, "argument 'question': expected `str`, got `int`"),
    "null": ({"question": None}, "argument 'question': expected `str`, got `null`"),
    "number": ({"limit": "4"}, "argument 'limit': expected `int`, got `str`"),
    "fraction": ({"limit": 2.5}, "argument 'limit': expected `int`, got `float`"),
    "union": ({"share": "much"}, "argument 'share': expected `float | null`, got `str`"),
    "literal": ({"kind": "broad"}, "argument 'kind': invalid enum value 'broad'"),
    "item": ({"names": ["a", 2]}, "argument 'names': expected `str`, got `int` - at `$[1]`"),
    "value": ({"scores": {"a": "b"}}, "argument 'scores': expected `int`, got `str` - at `$[...]`"),
    "missing": ({"question": ...}, "missing argument 'question'"),
}
FINE = [
    {"limit": 3, "share": 2},
    {"share": None, "names": None, "scores": {"a": 1}},
    {"names": ("a", "b"), "person": Person("Ada"), "extra": {"a": 1}},
    {"names": [], "kind": "short"},
]


def row(change: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in ({"question": "What?"} | change).items() if value is not ...}


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("name", WRONG)
def test_a_row_is_reported_by_its_number(name: str, eager: bool) -> None:
    change, message = WRONG[name]
    backend = ScriptedBackend()
    rows = [row({}), row({}), row(change)]
    with pytest.raises(UsageError) as caught:
        ask.run_batch(rows, backend=backend, eager=eager)
    assert str(caught.value).startswith(f"ask: {message} (row 2)\n  help: its arguments are ask(question: ")
    assert backend.requests == []


@pytest.mark.parametrize("name", WRONG)
def test_predictions_and_the_command_line_say_the_same(name: str, tmp_path: Path, capsys) -> None:
    change, message = WRONG[name]
    rows = [row({}), row(change)]
    with pytest.raises(UsageError) as caught:
        ask.explain(rows, backend="tiny")
    assert f"{message} (row 1)" in str(caught.value)
    data, program = tmp_path / "rows.jsonl", tmp_path / "programs.py"
    data.write_text("".join(json.dumps(each) + "\n" for each in rows))
    program.write_text(Path(__file__).read_text().split("WRONG:")[0])
    for command in ("run", "explain"):
        assert main([command, f"{program}:ask", "--data", str(data), "--model", "tiny"]) != 0
        shown = capsys.readouterr()
        assert f"{message} (row 1)" in shown.out + shown.err


def test_rows_that_fit_run() -> None:
    runs = ask.run_batch([row(change) for change in FINE], backend=ScriptedBackend())
    assert [run.error for run in runs] == [None] * len(FINE)


def test_a_single_call_may_give_what_it_likes() -> None:
    assert ask.run(question="What?", names=("a", 2), limit="4", backend=ScriptedBackend()).error is None


class Judge:
    @rf.program
    def judge(self, s, text: str, strict: bool = False):
        s += rf.user(text) + rf.assistant(rf.gen("verdict", max_tokens=2))


def test_methods_too() -> None:
    with pytest.raises(UsageError, match=r"judge: argument 'strict': expected `bool`, got `str` \(row 1\)"):
        Judge().judge.run_batch([{"text": "a"}, {"text": "b", "strict": "yes"}], backend=ScriptedBackend())


def test_annotations_that_mean_nothing_do_not_count() -> None:
    space: dict[str, Any] = {"rf": rf}
    exec("def p(s, a: 'Nobody', b: 'str'):\n    s += f'{a}{b}'\n", space)
    runs = rf.program(space["p"]).run_batch([{"a": 1, "b": 2}], backend=ScriptedBackend())
    assert runs[0].text == "12"


@pytest.mark.parametrize("eager", [True, False])
def test_a_message_of_none_is_refused(eager: bool) -> None:
    with pytest.raises(TypeError, match="text and expressions, not NoneType"):
        ask.run(question=None, backend=ScriptedBackend(), eager=eager)
