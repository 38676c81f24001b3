"""The commands of the REPL that look at programs and runs, and the one that times them."""

from __future__ import annotations

import re

from ramify.lang.commands.table import Commands
from ramify.lang.session import Session

from .terminal import HELLO, Type

TWICE = """\
@rf.program
def twice(s, question):
    s += "Two "
    s += "answers."
    for branch in s.fork(2):
        branch += rf.gen("answer", max_tokens=2)

"""


def test_what_each_pass_changed(type_in: Type) -> None:
    shown = re.sub(r"\([\d.]+ ms\)", "(TIME)", type_in(TWICE + ":passes twice\n"))
    heads = re.findall(r"^(\w+): .* \(TIME\)$", shown, re.MULTILINE)
    unchanged = re.findall(r"\w+", shown.splitlines()[-1].removeprefix("changed nothing: "))
    assert heads[:2] == ["promote", "canonicalize"] and "cse" in heads
    assert "inline" in unchanged and not {*unchanged} & {*heads}
    # A value keeps its name, whatever is put before it: only what a pass has changed differs.
    changed = [line for line in type_in(":passes twice dce\n").splitlines() if line[0] in "+-"]
    assert changed and all(line.startswith("-") for line in changed)
    assert '-  %branch = py.unbound {name = "branch"} : obj' in changed
    assert type_in("less = twice.options(disable='dce')\n:passes less dce\n") == "left out: dce\n"
    assert type_in(":passes\n").startswith("error: :passes takes the name of a program")
    assert type_in(":passes twice cs\n").splitlines()[1] == "  help: did you mean 'cse'?"
    assert type_in(":passes helo\n").startswith("error: there is no program 'helo'")


def test_what_a_program_would_cost(type_in: Type) -> None:
    type_in(TWICE + "q = 'What?'\nrf.set_default_backend(None)\n")
    told = type_in(":explain twice q\n")
    assert told.startswith("twice over 1 row on local:tiny\n") and "critical path: 1 call" in told
    assert type_in(":explain twice(question=q)\n") == type_in(":explain twice (q)\n") == told
    assert "nothing can be predicted without 'question'" in type_in(":explain twice\n")
    assert type_in(":explain twice q, 3\n").startswith("error: twice: 2 positional arguments given")
    assert type_in(":explain twice q 3\n") == (
        "error: these are not the arguments of a call: q 3\n  help: write them as for Python: twice(question)\n"
    )
    assert "NameError: name 'nobody'" in type_in(":explain twice nobody\n")
    assert type_in(":explain q\n").startswith("error: there is no program 'q'")
    assert type_in(":explain\n").startswith("error: :explain takes the name of a program")


def test_what_was_used(type_in: Type, session: Session) -> None:
    assert type_in(":usage\n").startswith("error: nothing was run yet")
    type_in(HELLO + "r = hello.run('Bob')\n")
    used = "prompt 3 tokens, 0 cached (0%), generated 3 tokens, 1 call"
    assert type_in(":usage\n") == f"last run: {used}, TIME\nsession:  {used}; runs: 1\n"
    type_in("runs = hello.run_batch([{'who': 'a'}, {'who': 'b'}])\n")
    type_in("for run in hello.run_batch([{'who': 'c'}, {'who': 'd'}], as_completed=True): pass\n")
    used = "prompt 15 tokens, 0 cached (0%), generated 15 tokens, 5 calls"
    assert type_in(":usage\n").splitlines()[1] == f"session:  {used}; runs: 5"
    type_in("@rf.program\ndef bad(s):\n    s += rf.gen('a')\n    raise ValueError(str(s['a']))\n\nbad.run()\n")
    assert type_in(":usage\n").splitlines()[1].endswith("; runs: 6, 1 failed")
    assert session.last_run is session.log.run(6) is not session.log.run(1)


def test_times(type_in: Type) -> None:
    assert type_in(":time 1 + 1\n") == "2\ntime: TIME\n"
    assert type_in(":time 1 / 0\n").endswith("ZeroDivisionError: division by zero\ntime: TIME\n")
    assert type_in(":time on\nx = 3\n:time x\n") == "time: TIME\n3\ntime: TIME\n"
    assert type_in(":time off\nx\n") == "3\n"
    assert type_in(":time\n").startswith("error: :time takes an expression")


def test_completion_of_commands(session: Session, type_in: Type) -> None:
    type_in(HELLO)
    complete = Commands(session).completions
    assert "hello" in complete(":passes ") and "cse" in complete(":passes hello ")
    assert list(complete(":explain hel")) == ["hello"] and list(complete(":explain hello ")) == ["who="]
    assert list(complete(":explain hello 'x', ")) == list(complete(":explain nobody ")) == []
    assert list(complete(":time ")) == ["on", "off"] and "clear" in complete(":cache ")
    assert list(complete(":nothing ")) == list(complete(":tree ")) == []
