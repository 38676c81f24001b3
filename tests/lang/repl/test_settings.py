"""`:set`, `?NAME`, `:runs` and `:diff`."""

from __future__ import annotations

from ramify.lang.commands.table import Commands
from ramify.lang.session import Session

from .terminal import HELLO, Type

LIMITED = HELLO.replace("@rf.program", "@rf.program(max_tokens=2)").replace("hello", "limited")


def shown(told: str) -> dict[str, str]:
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in told.splitlines()}


def test_settings_hold_where_nothing_else_is_said(type_in: Type, session: Session) -> None:
    type_in(HELLO + LIMITED)
    assert shown(type_in(":set\n"))["max_tokens"] == "as programs say, else 128"
    assert type_in(":set max_tokens 1\n") == "max_tokens  1\n"
    assert type_in("hello.run('Bob').value\nlimited.run('Bob').value\n").count("' 2'\n") == 2
    # What is said in the session goes before the setting.
    assert "' 2 times user'\n" in type_in("hello.options(max_tokens=9).run('Bob').value\n")
    assert "' 2'\n" in type_in("hello.options(temperature=1).run('Bob').value\n")
    assert type_in("[run.value for run in hello.run_batch([{'who': 'a'}])]\n") == "[' 2']\n"
    type_in(":set max_tokens default\n")
    assert "' 2 times user'\n" in type_in("hello.run('Bob').value\n") and session.settings == {}


def test_settings_are_checked(type_in: Type, session: Session) -> None:
    assert type_in(":set max_tokens x\n").startswith("error: max_tokens must be an int, got 'x'\n")
    assert type_in(":set temperature -1\n") == "error: temperature must be >= 0 and finite, got -1\n"
    assert type_in(":set temprature 1\n") == (
        "error: there is no setting 'temprature'\n  help: did you mean 'temperature'?\n"
    )
    assert type_in(":set debug maybe\n") == "error: debug is on or off, not maybe\n"
    assert type_in(":set model nope\n").startswith("error: there is no backend 'nope'")
    type_in(":set debug on\n")
    assert "Traceback" in type_in("rf.gen(1, 2, 3, 4, x=5)\n") and session.debug
    assert session.settings == {}


def test_the_model_is_set(type_in: Type) -> None:
    type_in(HELLO + "from ramify.backends.scripted import ScriptedBackend\n")
    assert type_in(":set backend ScriptedBackend(lambda text, params: 'other')\n") == "backend  scripted\n"
    assert "value: other\n" in type_in("hello.run('Bob')\n")
    assert type_in(":set model scripted\n") == "model  scripted\n"
    assert "value: other\n" not in type_in("hello.run('Bob')\n")
    assert type_in(":set backend 3\n").startswith("error: a backend is a name, a directory or a Backend, not int")


def test_help_of_a_program(type_in: Type) -> None:
    type_in(
        "@rf.program\ndef judge(s, claim: str, tries=2):\n    '''Whether a claim holds.'''\n"
        "    s += claim + rf.select('verdict', ['yes', 'no'])\n    return s['verdict'] == 'yes'\n\n"
    )
    assert type_in("?judge\n") == (
        "program judge(claim: str, tries=2)\n"
        "  Whether a claim holds.\n"
        "parameters\n"
        "  claim: str  (required)\n"
        "  tries=2\n"
        "asks the model for\n"
        "  select verdict\n"
        "returns s['verdict'] == 'yes'\n"
        "defined in <ramify-1>:1\n"
    )
    assert type_in("@rf.program\ndef f(s) -> int:\n    s += 'x'\n    return 3\n\n?f\n").splitlines()[1] == "returns int"


def test_help_of_other_names(type_in: Type) -> None:
    assert type_in("? rf.embed\n").startswith("rf.embed(")
    assert type_in("x = [1]\n?x\n") == "x = [1]\nof type list\n"
    assert type_in("?len\n").startswith("len(obj, /)\n")
    assert type_in("?rf.embd\n") == "error: rf has no attribute 'embd'\n  help: did you mean 'embed'?\n"
    assert type_in("?nobody\n").startswith("error: there is no name 'nobody'")
    assert type_in("?x[0]\n").startswith("error: 'x[0]' is no name")
    assert type_in("?:tree\n") == ":tree [RUN]  the prompt tree of the last run\n"
    assert type_in("?:tre\n") == "error: there is no command :tre\n  help: did you mean ':tree'?\n"
    assert type_in("?\n") == type_in(":help\n")


def test_runs_are_numbered_and_compared(type_in: Type, session: Session) -> None:
    assert type_in(":runs\n").startswith("error: nothing was run yet")
    assert type_in(":diff 1 2\n") == "error: there is no run 1\n  help: nothing was run yet\n"
    type_in(HELLO + "a = hello.run('Bob')\nb = hello.run('Ann')\nc = hello.options(max_tokens=1).run('Ann')\n")
    type_in("@rf.program\ndef bad(s):\n    s += 'x' + rf.gen('g')\n    raise ValueError(str(s['g']))\n\nbad.run()\n")
    rows = [line.split() for line in type_in(":runs\n").splitlines()]
    assert [row[:2] for row in rows[1:]] == [["1", "hello"], ["2", "hello"], ["3", "hello"], ["4", "bad"]]
    assert "failed: ValueError" in type_in(":runs\n")
    told = type_in(":diff 2 3\n").splitlines()
    assert told[:2] == ["value: ' 2 times user' -> ' 2'", "a: ' 2 times user' -> ' 2'"]
    assert told[-2:] == [
        "run 2: prompt 3 tokens, 0 cached (0%), generated 3 tokens, 1 call",
        "run 3: prompt 3 tokens, 0 cached (0%), generated 1 token, 1 call",
    ]
    assert "\n-<user>Hi Bob</user>" in type_in(":diff 1 2\n")
    assert type_in(":diff 2 2\n").startswith("they said the same\n")
    assert "a: ' 2 times user' -> (none)" in type_in(":diff 1 4\n")
    assert type_in(":diff 1 9\n") == "error: there is no run 9\n  help: the runs are 1 to 4\n"
    assert type_in(":diff 1\n").startswith("error: :diff takes the numbers of two runs")


def test_long_values_are_compared_where_they_differ(type_in: Type) -> None:
    type_in("@rf.program\ndef big(s, n):\n    s['x'] = list(range(5000 * n))\n    return 'a' * 500 + 'bc'[n] * 500\n\n")
    type_in("big.run(0)\nbig.run(1)\n")
    value, x, *_ = type_in(":diff 1 2\n").splitlines()
    assert value == f"value: ...{'a' * 24}{'b' * 136}... -> ...{'a' * 24}{'c' * 136}..."
    assert x.startswith("x: [] -> [0, 1, 2, 3") and x.endswith("...") and len(x) < 200


def test_completion_of_settings_and_runs(session: Session, type_in: Type) -> None:
    type_in(HELLO + "a = hello.run('Bob')\n")
    complete = Commands(session).completions
    assert {"model", "seed"} <= set(complete(":set ")) and "off" in complete(":set debug ")
    assert list(complete(":diff ")) == ["1"] and list(complete(":tokens ")) == ["a"]
