"""Programs saved as IR and loaded where their file is not: text and binary, trust, and what cannot travel."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import CompileError, DecodeError, UntrustedCode

LIMITS = {"short": 3, "long": 6}
LOCK = object()


def shout(text: str) -> str:
    return tidy(text).upper()


def tidy(text: str) -> str:
    return text.strip()


def ask(s: Any, question: str, length: str = "short") -> str:
    s += rf.user(question) + rf.assistant(rf.gen("answer", max_tokens=LIMITS[length]))
    return shout(s["answer"])


@rf.program
def survey(s, questions, scale: float = 2.0):
    s += rf.system("Be brief.")
    answers = [ask(s.copy(), q, length="long") for q in questions]
    try:
        s += json.dumps(answers)
    except TypeError:
        s += "none"
    return answers, math.floor(scale * len(answers)), s.text()


@rf.program
def locked(s):
    s += str(id(LOCK))


@rf.program
def outer(s):
    return survey.run(["a?"]).value


@rf.program
def aliases(s):
    other = survey
    s += other.name


def enclosing() -> rf.Program:
    inner = survey

    @rf.program
    def encloses(s):
        other = inner
        s += other.name

    return encloses


@rf.program
def passes_on(s, questions):
    return [each(s.copy(), questions) for each in (survey, ask_all)]


@rf.program
def ask_all(s, questions):
    return survey(s, questions, scale=1.0)


def outside(program: Any, path: Path) -> rf.Program:
    """The program, saved and loaded again."""
    program.compile().save(path)
    return rf.load(path, trust=True)


@pytest.mark.parametrize("name", ["survey.ir", "survey.irb"])
@pytest.mark.parametrize("eager", [False, True])
def test_a_loaded_program_does_the_same(tmp_path: Path, name: str, eager: bool) -> None:
    loaded = outside(survey, tmp_path / name)
    runs = [p.run(["a?", "b?"], backend=ScriptedBackend(), eager=eager) for p in (survey, loaded)]
    assert runs[0].value == runs[1].value and runs[0].text == runs[1].text


def test_loaded_functions_are_the_files_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = outside(survey, tmp_path / "survey.irb")
    monkeypatch.setitem(globals(), "LIMITS", {})
    assert loaded.run(["a?"], backend=ScriptedBackend()).value[1] == 2


def test_nothing_runs_without_trust(tmp_path: Path) -> None:
    survey.compile().save(tmp_path / "survey.irb")
    with pytest.raises(UntrustedCode, match=r"the source of survey, ask, shout, tidy.*imports of"):
        rf.load(tmp_path / "survey.irb")


def test_what_cannot_travel_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="locked uses LOCK, a object, which cannot be saved"):
        locked.compile().save(tmp_path / "locked.ir")
    assert not (tmp_path / "locked.ir").exists()


def test_a_program_that_runs_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"outer uses survey.run; .*only calls with a state can be saved"):
        outer.compile().save(tmp_path / "outer.ir")


@pytest.mark.parametrize("program", [aliases, enclosing()])
def test_so_is_one_that_does_under_another_name(tmp_path: Path, program: rf.Program) -> None:
    with pytest.raises(CompileError, match=r"uses (survey|inner) as a value, and \.name; .*only calls with a state"):
        program.compile().save(tmp_path / "aliases.ir")


def test_a_program_passed_on_as_a_value_is_saved(tmp_path: Path) -> None:
    loaded = outside(passes_on, tmp_path / "passes_on.ir")
    given = {"questions": ["a?"]}
    expected = passes_on.run(**given, backend=ScriptedBackend())
    assert loaded.run(**given, backend=ScriptedBackend()).value == expected.value


def test_a_missing_import_is_named(tmp_path: Path) -> None:
    path = tmp_path / "survey.ir"
    survey.compile().save(path)
    path.write_text(path.read_text(encoding="utf-8").replace('"json"', '"jsonx"'), encoding="utf-8")
    with pytest.raises(DecodeError, match="needs json from jsonx, which cannot be imported here"):
        rf.load(path, trust=True)


def test_errors_in_loaded_code_show_their_lines(tmp_path: Path) -> None:
    loaded = outside(survey, tmp_path / "survey.irb")
    (run,) = loaded.run_batch([{"questions": ["a?", 5]}], backend=ScriptedBackend())
    assert isinstance(run.error, TypeError)
