"""`:edit`, `:retry`, `:record` and `:replay`: runs made again with another answer, and from files."""

from __future__ import annotations

from pathlib import Path

import pytest
from ramify.backends.scripted import ScriptedBackend
from ramify.lang.commands.table import Commands
from ramify.lang.session import Session

from .terminal import HELLO, Type

SHOP = """\
@rf.tool
def price(item: str) -> float:
    "The price of goods."
    return {"lamp": 20.0}.get(item, 1.0)

@rf.program
def shop(s, items):
    forks = s.fork(len(items))
    for branch, item in zip(forks, items):
        branch += rf.user(f"{item}: {price(item)}") + rf.assistant(rf.gen("why", max_tokens=3))
        branch += rf.assistant(rf.select("buy", ["yes", "no"]))
    s += rf.user("; ".join(branch["buy"] for branch in forks)) + rf.assistant(rf.gen("end", max_tokens=3))
    return s["end"]

"""


def last_line(text: str) -> str:
    return text.rstrip("\n").rpartition("\n")[2]


def test_a_run_is_edited_and_what_depends_on_that_runs_again(
    type_in: Type, session: Session, backend: ScriptedBackend
) -> None:
    type_in(SHOP + "r = shop.run(['lamp', 'sofa'])\n")
    tree = type_in(":tree\n")
    assert "assistant: [2] why = ' " in tree and "[7] end" in tree
    assert "└── [4] price(item='sofa') -> 1.0" in tree
    number = len(backend.requests)
    other = "no" if session.latest_run().trace[2].text == "yes" else "yes"  # type: ignore[union-attr]
    assert last_line(type_in(f':edit buy#1 "{other}"\n')) == (
        "run 2, from run 1: re-ran 1 of 5 generations, 0 of 2 tool calls; 0 of 3 prompt tokens cached"
    )
    assert last_line(type_in(":edit 4 5.5\n")).startswith("run 3, from run 2: re-ran 2 of 5 generations")
    assert last_line(type_in(':edit --run 1 end "bye"\n')) == (
        "run 4, from run 1: re-ran 0 of 5 generations, 0 of 2 tool calls"
    )
    assert last_line(type_in(":retry end\n")).startswith("run 5, from run 4: re-ran 1 of 5 generations")
    assert last_line(type_in(":retry end\n")).startswith("it said the same again: end is greedy")
    assert last_line(type_in(":retry price#1\n")) == "run 7, from run 6: re-ran 0 of 5 generations, 1 of 2 tool calls"
    assert len(backend.requests) == number + 5 and list(session.log.kept) == [1, 2, 3, 4, 5, 6, 7]
    assert f"buy of branch 0: '{'no' if other == 'yes' else 'yes'}' -> '{other}'" in type_in(":diff 1 2\n")
    assert "end = 'bye'" in type_in(":tree 4\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (":edit", "error: :edit takes a node of the run and what it becomes"),
        (":edit end", "error: :edit takes a node"),
        (':edit edn "x"', "error: the run has no node 'edn'\n  help: did you mean 'end'?"),
        (':edit 9 "x"', "error: the run has no node 9\n  help: they are 1 to 4: price, why (branch 0)"),
        (":edit end bye", "error: this is no value: bye\n  help: texts are written as in Python"),
        (":edit end 'bye", "error: this is no value: 'bye"),
        (':edit buy "maybe"', "error: 'maybe' is not one of the choices\n  help: they are yes, no"),
        (':edit --run x end "x"', "error: x is no number of a run"),
        (':edit --run 7 end "x"', "error: there is no run 7"),
        (":retry", "error: :retry takes a node"),
        (":retry end warm", "error: this is no parameter: warm"),
        (":retry end temprature=1", "error: a retry takes no temprature\n  help: did you mean 'temperature'?"),
        (":retry end temperature=-1", "error: temperature must be >= 0"),
        (":retry buy seed=1", "error: buy is no generation, so it takes no seed"),
        (":tree x", "error: x is no number of a run"),
        (":replay", "error: no runs are played from a file"),
        (":record off", "error: no runs are recorded to a file"),
        (":replay nothing.rec", "error: there is no recording 'nothing.rec'"),
    ],
)
def test_what_cannot_be(type_in: Type, line: str, said: str) -> None:
    type_in(SHOP + "r = shop.run(['lamp'])\n")
    assert type_in(f"{line}\n").startswith(said)


def test_a_failed_edit_is_shown_and_remembered(type_in: Type, session: Session) -> None:
    type_in(
        "@rf.program\ndef ask(s):\n"
        '    s += rf.gen("a", max_tokens=1)\n'
        '    if s["a"] == "bad":\n        raise ValueError("it is bad")\n\n'
        "r = ask.run()\n"
    )
    shown = type_in(':edit a "bad"\n')
    assert "run 2, from run 1: re-ran 0 of 1 generation" in shown and "ValueError: it is bad" in shown
    assert not session.latest_run().ok
    assert type_in(':edit a "good"\n').endswith("run 3, from run 2: re-ran 0 of 1 generation\n")


def test_runs_are_recorded_and_played(
    type_in: Type, session: Session, backend: ScriptedBackend, tmp_path: Path
) -> None:
    file = tmp_path / "runs.rec"
    type_in(HELLO)
    assert type_in(f":record {file}\n") == f"runs are recorded to {file}; :record off ends that\n"
    first = type_in("hello.run('Bob')\n")
    type_in(':edit a "Hi"\n')
    assert type_in(f":replay {file}\n").startswith(f"error: runs are recorded to {file}; :record off ends that\n")
    assert type_in(":record\n").startswith("runs are recorded to")
    assert type_in(":record off\n") == f"runs are no longer recorded to {file}\n"
    assert type_in(f":record {file}\n").startswith(f"error: {file} exists already")
    number = len(backend.requests)
    shown = type_in(f":replay {file}\n").splitlines()
    assert shown[0].startswith("0: hello('Bob'), compiled: ") and shown[-1].startswith(f"runs are played from {file}")
    assert type_in("hello.run('Bob')\n") == first  # the run, then its edit, then the run again
    assert "Hi" in type_in("hello.run('Bob')\n")
    assert type_in("hello.run('Bob')\n") == first
    assert type_in(':edit a "Oh"\n').count("Oh") and len(backend.requests) == number
    assert "has no such run of hello" in type_in("hello.run('Eve')\n")
    type_in(":replay off\n")
    type_in(f":replay {file} --partial\n")
    assert "error" not in type_in("hello.run('Eve')\n") and len(backend.requests) == number + 1
    type_in(":replay off\n")
    file.write_bytes(file.read_bytes()[:-20] + b"x" * 20)
    assert "is damaged" in type_in(f":replay {file}\n")
    assert "error" not in type_in("hello.run('Bob')\n") and session.tape is None


def test_nodes_are_completed(type_in: Type, session: Session) -> None:
    type_in(SHOP + "r = shop.run(['lamp'])\n")
    commands = Commands(session)
    assert list(commands.completions(":edit ")) == ["price", "why", "buy", "end"]
    assert list(commands.completions(":edit buy ")) == ["'yes'", "'no'"]
    assert "temperature=" in commands.completions(":retry why ")
    assert list(commands.completions(":tree ")) == ["1"]
