"""Texts that are assigned to a state's name instead of appended: a warning at the place, eagerly and compiled."""

# ruff: noqa: F841

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import UsageError
from ramify.lang.cli import main

BOTH = pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])


@rf.program
def text(s):
    s += "kept"
    s = "lost"
    return s


@rf.program
def message(s):
    s = rf.user("lost") + rf.gen("x")


@rf.program
def formatted(s, name):
    s = "lost, {}".format(name) if name else f"lost{name}"  # noqa: UP032


@rf.program
def walrus(s):
    print(s := "lost")


@rf.program
def branches(s):
    for branch in s.fork(2):
        branch = rf.gen("x")


@rf.program
def both(s):
    s, draft = "lost", s.copy()
    draft = "lost too"
    return s, draft


class Agent:
    @rf.program
    def speak(self, __s):
        __s = "lost"


@rf.program
def states(s):
    s += "a"
    s = s.copy()
    s = s.fork(2)[0]
    one, s = s.fork(2)
    for s in one.fork(2):
        s += "b"
    s = s if s else one
    return s.text()


@rf.program
def other_use(s, items):
    s += "a" + rf.gen("x", max_tokens=2)
    s = s["x"].strip()
    text = "a plain name"
    s = len(items)
    s = None
    return s, text


def found(program: Any, eager: bool, **arguments: Any) -> list[tuple[str, int]]:
    """The warnings of a run: the name, and the line below the `def`."""
    first = program.fn.__code__.co_firstlineno + 1
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        rf.program(program.fn).run(**arguments, backend=ScriptedBackend(), eager=eager)  # compiled anew
    assert all(each.category is rf.ReboundStateWarning and each.filename == __file__ for each in told)
    return [(str(each.message).split("`")[1], each.lineno - first) for each in told]


@BOTH
def test_a_text_or_expression_is_told(eager):
    assert found(text, eager) == [("s", 2)]
    assert found(message, eager) == [("s", 1)]
    assert found(formatted, eager, name="me") == [("s", 1)]
    assert found(walrus, eager) == [("s", 1)]
    assert found(branches, eager) == [("branch", 2)]
    assert found(both, eager) == [("s", 1), ("draft", 2)]


@BOTH
def test_states_and_what_is_computed_are_not(eager):
    assert found(states, eager) == []
    assert found(other_use, eager, items=[1]) == []


def test_the_result_is_python_s():
    with pytest.warns(rf.ReboundStateWarning, match=r"write `s \+= ...`"):
        run = text.run(backend=ScriptedBackend(), eager=True)
    assert (run.value, run.text) == ("lost", "kept")


def test_a_method_s_state_of_a_private_name():
    for eager in (True, False):
        with pytest.warns(rf.ReboundStateWarning, match="`__s`"):
            Agent().speak.run(backend=ScriptedBackend(), eager=eager)
    assert Agent.speak.compile().eager == []


def test_helpers_are_told_of_when_a_program_is_compiled():
    def helper(part):
        part = "lost"

    @rf.program
    def outer(s):
        helper(s)

    with pytest.warns(rf.ReboundStateWarning, match="`part`"):
        outer.compile()


def test_check_shows_the_line(tmp_path: Path, capsys):
    file = tmp_path / "program.py"
    file.write_text('import ramify as rf\n\n@rf.program\ndef hello(s):\n    s = "hé" + rf.gen("x")\n')
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out == (
        f"{file}:hello: ok\n"
        f"  {file}:5\n"
        '          s = "hé" + rf.gen("x")\n'
        "              ^^^^^^^^^^^^^^^^^^\n"
        "  warning: `s` is a state until here, and this appends nothing to it\n"
        "  help: to append, write `s += ...`; for something else take another name\n"
    )


@BOTH
def test_a_state_is_no_operand_and_no_text(eager):
    @rf.program
    def added(s):
        return s.copy() + "text"

    @rf.program
    def put_in_front(s):
        s += "text" + s.copy()

    @rf.program
    def formatted(s):
        s += f"so far: {s.copy()}"

    for program in (added, put_in_front):
        with pytest.raises(TypeError, match=r"`s \+= ...` appends to it"):
            program.run(backend=ScriptedBackend(), eager=eager)
    with pytest.raises(UsageError, match=r"`s\.text\(\)` is its text"):
        formatted.run(backend=ScriptedBackend(), eager=eager)
