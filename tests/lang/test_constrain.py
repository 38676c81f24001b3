"""Constraints that are known before anything runs are checked then; constant arguments are part of their ops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import RequestError, UsageError
from ramify.lang.cli import main

PATTERN = "(?=look)ahead"
SCHEMA = {"type": "string", "contentEncoding": 3, "format": "no such format"}


class Opaque:
    """No type that JSON has a form for."""


@rf.program
def written_out(s):
    s += rf.gen("first", max_tokens=4)
    if s["first"] == "never":
        s += rf.gen("second", regex="(?=look)ahead")


@rf.program
def named(s):
    s += rf.gen("first", max_tokens=4)
    s += rf.gen("second", regex=PATTERN)


@rf.program
def typed(s):
    s += rf.gen("first", max_tokens=4)
    s += rf.gen("second", schema=Opaque)


@rf.program
def grammatical(s):
    s += rf.gen("first", max_tokens=4)
    s += rf.gen("second", grammar="start: missing")


@rf.program
def without_end(s):
    s += rf.gen("first", max_tokens=4)
    s += rf.gen("second", grammar='start: "x" more\nmore: "y" more')


def number(s, name, pattern):
    s += "Number: "
    s += rf.gen(name, regex=pattern)


@rf.program
def through_a_helper(s):
    s += rf.gen("first", max_tokens=4)
    number(s, "second", "[0-9]+(?=look)")


@rf.program
def handled(s):
    try:
        s += rf.gen("x", regex="(?=look)ahead")
    except RequestError:
        s += "no"
    return s.text()


PROGRAMS = [written_out, named, typed, grammatical, without_end, through_a_helper]


def ways(program: rf.Program) -> dict[str, Callable[[], Any]]:
    return {
        "compile": program.compile,
        "run": program.run,
        "run_batch": lambda: program.run_batch([{}, {}]),
        "explain": lambda: program.explain([{}], backend="tiny"),
    }


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: each.name)
@pytest.mark.parametrize("way", ["compile", "run", "run_batch", "explain"])
def test_a_constraint_that_cannot_be_kept_is_refused_before_anything_runs(program: rf.Program, way: str) -> None:
    backend = ScriptedBackend()
    with pytest.raises(RequestError) as caught:
        ways(program.options(backend=backend))[way]()
    assert backend.requests == []
    assert caught.value.span is not None
    assert "second" in caught.value.span.source_line() or "rf.gen(name, regex=pattern)" in str(caught.value)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: each.name)
def test_an_eager_run_finds_it_when_it_comes_there(program: rf.Program) -> None:
    backend = ScriptedBackend()
    if program is written_out:
        program.options(backend=backend).run(eager=True)  # it never does
    else:
        with pytest.raises((RequestError, TypeError)):
            program.options(backend=backend).run(eager=True)
    assert len(backend.requests) == 1


@pytest.mark.parametrize("eager", [True, False])
def test_in_a_try_it_is_the_runs_affair(eager: bool) -> None:
    assert handled.options(backend=ScriptedBackend()).run(eager=eager).value == "no"


def test_a_name_may_mean_something_else_later(monkeypatch) -> None:
    monkeypatch.setitem(globals(), "PATTERN", "[0-9]{1,3}")
    named.compile()
    monkeypatch.setitem(globals(), "PATTERN", "(")
    with pytest.raises(RequestError, match="unclosed group"):
        rf.program(named.fn).compile()


def test_grammars_in_files_are_read_when_they_are_needed(tmp_path: Path) -> None:
    path = str(tmp_path / "later.lark")
    source = f"import ramify as rf\n\n\n@rf.program\ndef p(s):\n    s += rf.gen('x', grammar={path!r})\n"
    file = tmp_path / "programs.py"
    file.write_text(source)
    space: dict[str, Any] = {"__name__": "programs"}
    exec(compile(source, str(file), "exec"), space)
    program = space["p"].options(backend=ScriptedBackend(lambda text, params: "yes"))
    program.compile()
    with pytest.raises((RequestError, UsageError), match=r"later\.lark"):
        program.run()
    Path(path).write_text('start: "yes"')
    assert program.run()["x"] == "yes"


def test_check_shows_the_line(tmp_path: Path, capsys) -> None:
    file = tmp_path / "programs.py"
    file.write_text("import ramify as rf\n\nDAY = '('\n\n\n@rf.program\ndef p(s):\n    s += rf.gen('x', regex=DAY)\n")
    assert main(["check", str(file)]) == 2
    shown = capsys.readouterr().out
    assert "s += rf.gen('x', regex=DAY)" in shown and "^" in shown and "unclosed group" in shown


def test_what_a_caller_gives_is_part_of_the_op() -> None:
    @rf.program
    def program(s):
        number(s, "a", "[0-9]")
        number(s, "b", "[a-z]")
        return s["a"] + s["b"]

    gens = [op for op in program.compile().module.walk() if op.name == "lm.gen"]
    assert [(op.attrs["name"], op.attrs["params"]) for op in gens] == [
        ("a", {"regex": "[0-9]"}),
        ("b", {"regex": "[a-z]"}),
    ]
    assert all("dynamic" not in op.attrs for op in gens)
    plain = [op for op in program.options(disable="inline").compile().module.walk() if op.name == "lm.gen"]
    assert [op.attrs["dynamic"] for op in plain] == [["name", "regex"]]
    runs = [program.options(backend="tiny").run(eager=eager) for eager in (True, False)]
    assert runs[0].value == runs[1].value and runs[0].vars == runs[1].vars


def test_a_wrong_type_is_a_type_error_whenever_it_is_found() -> None:
    @rf.program
    def number(s):  # type: ignore[no-untyped-def]
        s += rf.gen("x", regex=3)

    @rf.program
    def formless(s):  # type: ignore[no-untyped-def]
        s += rf.gen("x", schema=object)

    for program in (number, formless):
        for eager in (True, False):
            with pytest.raises(TypeError, match=r"regex takes a text, not int: 3|object has no form in JSON"):
                program.run(backend=ScriptedBackend(), eager=eager)
        with pytest.raises(RequestError, match=r"rf\.gen") as caught:
            program.compile()
        assert caught.value.span is not None
