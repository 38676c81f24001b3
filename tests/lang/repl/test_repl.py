"""The REPL: piped, with its exact output."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir
from ramify.lang.cli import main
from ramify.lang.commands.table import Commands
from ramify.lang.console import NameCompleter, is_whole
from ramify.lang.options import set_default_backend
from ramify.lang.session import Session

from .terminal import HELLO, Type


def test_values_and_names(type_in: Type) -> None:
    assert type_in("1 + 2\nx = 4\nx\nNone\n'a'; _\n") == "3\n4\n'a'\n'a'\n"


def test_blocks_end_before_what_is_no_part_of_them(type_in: Type) -> None:
    assert type_in("for i in range(2):\n    i\n\n") == "0\n1\n"
    assert type_in("for i in range(2):\n    i\n'after'\n") == "0\n1\n'after'\n"
    assert type_in("if False:\n    1\nelse:\n    2\n'after'\n") == "2\n'after'\n"
    assert type_in("try:\n    1 / 0\nexcept ZeroDivisionError:\n    'no'\nfinally:\n    'end'\n") == "'no'\n'end'\n"
    assert type_in("def f():\n    return 1\ndef g():\n    return f() + 1\ng()\n") == "2\n"
    assert type_in("x = (1,\n2)\nx\ny = '''a\n\nb'''\ny\n") == "(1, 2)\n'a\\n\\nb'\n"
    assert type_in("if True:\n    1\n# a remark\n    2\n") == "1\n2\n"
    assert type_in("if True:\n    'no line end'") == "'no line end'\n"


def test_blocks_may_hold_empty_lines(type_in: Type) -> None:
    assert type_in("def f(x):\n    y = x + 1\n\n    return y\n\n\nf(1)\n") == "2\n"
    assert type_in("if f(1) == 3:\n    'three'\n\nelse:\n    'other'\n\n:foo\n").startswith(
        "'other'\nerror: there is no"
    )
    assert type_in('for n in range(2):\n    n\n\n"""a\n\nb"""\n') == "0\n1\n'a\\n\\nb'\n"


def test_the_rest_of_a_broken_block_is_skipped(type_in: Type) -> None:
    told = type_in("def f(x):\n    y = = 3\n    return y\n\n    z = 3\nelse:\n    pass\n'on'\n    1\n    2\n:nope\n")
    assert told.startswith("<ramify-1>:2\n        y = = 3\n            ^\nerror: invalid syntax\n'on'\n<ramify-3>:1\n")
    assert told.count("error:") == 3 and told.count("unexpected indent") == 1
    assert type_in("if True:\n    'fine'\nx = = 1\n'next'\n").splitlines()[-1] == "'next'"


def test_methods_are_watched_as_other_programs_are(type_in: Type, session: Session) -> None:
    type_in("class A:\n    @rf.program\n    def ask(self, s):\n        s += 'x' + rf.gen('a')\n\n\na = A()\n")
    type_in("watched = A.ask\n")
    assert "x 0 times user" in type_in("A.ask = watched\na.ask.run()\n")
    assert session.last_run is not None and session.last_run["a"] == " 0 times user"


def test_a_run_is_shown_as_it_goes(type_in: Type) -> None:
    assert type_in(HELLO + "hello.run('Bob')\n") == (
        "[user] Hi Bob\n"
        "[assistant]  2 times user\n"
        "value:  2 times user\n"
        "prompt 3 tokens, 0 cached (0%), generated 3 tokens, 1 call, TIME\n"
    )
    assert type_in("r = hello.run('Ann')\nr.value\n") == "[user] Hi Ann\n[assistant]  2 times user\n' 2 times user'\n"
    assert type_in("r = hello.options(max_tokens=1).run('Ann')\n") == "[user] Hi Ann\n[assistant]  2\n"
    assert type_in("[run.value for run in hello.run_batch([{'who': 'a'}, {'who': 'b'}], max_in_flight=1)]\n") == (
        "[' 2 times user', ' 2 times user']\n"
    )


def test_the_users_own_stream_takes_the_place_of_the_view(type_in: Type) -> None:
    assert type_in(HELLO + "seen = []\nr = hello.run('Ann', stream=seen.append)\nlen(seen) > 3\n") == "True\n"


def test_a_run_inside_of_another_is_shown_in_the_same_view(type_in: Type) -> None:
    listen = "@rf.program\ndef outer(s):\n    s += rf.user('Listen')\n    a = hello.run('you').value\n"
    outer = listen + "    s += a + rf.gen('b')\n\n"
    told = "[user] Listen\n[user] Hi you\n[assistant]  2 times user\n 2 times user 3 times user\n"
    assert type_in(HELLO + outer + "r = outer.run()\n") == told


def test_runs_under_asyncio_are_numbered(type_in: Type, session: Session) -> None:
    type_in(HELLO + "import asyncio\nasync def both():\n    await asyncio.gather(hello.arun('a'), hello.arun('b'))\n\n")
    type_in("asyncio.run(both())\n")
    assert session.log.num_runs == 2 and session.latest_run()["a"] == " 2 times user"
    type_in("@rf.program\ndef bad(s):\n    raise ValueError('no')\n\nasyncio.run(bad.arun())\n")
    assert session.log.num_failed == 1 and "failed: ValueError" in type_in(":runs\n")


def test_the_tree_of_the_last_run(type_in: Type) -> None:
    assert type_in(":tree\n") == "error: nothing was run yet\n  help: run a program, as in NAME.run(...)\n"
    program = """\
@rf.program
def spread(s):
    s += "Some\\nwords " + "x" * 80
    for branch in s.fork(2):
        branch += rf.user("Say") + rf.assistant(rf.gen("x", max_tokens=2))
        branch += rf.user("More") + rf.assistant("It is " + rf.select("y", ["a", "b"]))
    s += rf.gen("end", max_tokens=1)

r = spread.run()
"""
    type_in(program)
    assert type_in(":tree\n") == (
        "the first state\n"
        f"├── Some words {'x' * 46}...\n"
        "├── goes on\n"
        "│   └── [5] end = ' 0'  (prompt 3 tokens, 0 cached, generated 1)\n"
        "├── branch 0\n"
        "│   ├── user: Say\n"
        "│   ├── assistant: [1] x = ' 2 times'  (prompt 4 tokens, 0 cached, generated 2)\n"
        "│   ├── user: More\n"
        "│   ├── assistant: It is\n"
        "│   └── [2] y = 'a'  (prompt 10 tokens, 0 cached)\n"
        "└── branch 1\n"
        "    ├── user: Say\n"
        "    ├── assistant: [3] x = ' 2 times'  (prompt 4 tokens, 0 cached, generated 2)\n"
        "    ├── user: More\n"
        "    ├── assistant: It is\n"
        "    └── [4] y = 'a'  (prompt 10 tokens, 0 cached)\n"
    )


def test_the_ir_of_a_program(type_in: Type) -> None:
    shown = type_in(HELLO + ":ir hello\n")
    assert shown.startswith("module @hello\n\nfunc @hello(%s: cell, %who: obj) {\n")
    assert type_in(":ir hello --after frontend\n").count("cell.load") > shown.count("cell.load")
    assert type_in(":ir helo\n") == "error: there is no program 'helo'\n  help: did you mean 'hello'?\n"
    refused = "error: there is no pass 'x'\n  help: the passes are frontend, inline, promote, canonicalize"
    assert type_in(":ir hello --after x\n").startswith(refused)
    assert type_in(":ir\n") == "error: :ir takes the name of a program\n  help: :ir PROGRAM [--after PASS]\n"


def test_commands(type_in: Type) -> None:
    assert type_in(":tre\n") == "error: there is no command :tre\n  help: did you mean ':tree'?\n"
    shown = [line.split()[0] for line in type_in(":help\n").splitlines()]
    assert shown[0] == ":ir" and shown[-2:] == [":help", ":quit"] and ":tree" in shown
    assert type_in(":usage now\n") == "error: :usage does not know what to do with now\n  help: :usage\n"
    assert type_in("if True:\n    1\n:help\n").startswith("1\n:ir")
    with pytest.raises(SystemExit):
        type_in(":quit\n")
    with pytest.raises(SystemExit):
        type_in("raise SystemExit(3)\n")


def test_errors_show_the_users_lines_and_the_session_goes_on(type_in: Type) -> None:
    assert type_in("x = 3\ndef f(:\nx\n") == "<ramify-2>:1\n    def f(:\n          ^\nerror: invalid syntax\n3\n"
    assert type_in("return 3\n") == "<ramify-4>:1\n    return 3\n    ^^^^^^^^\nerror: 'return' outside function\n"
    assert type_in("def g():\n    return 1 / 0\n\ng()\n") == (
        'Traceback (most recent call last):\n  File "<ramify-6>", line 1, in <module>\n    g()\n'
        '  File "<ramify-5>", line 2, in g\n    return 1 / 0\n           ~~^~~\nZeroDivisionError: division by zero\n'
    )
    bad = "@rf.program\ndef bad(s):\n    s += rf.gen('é')\n    word = s['é']\n    raise ValueError(word)\n\n"
    assert type_in(bad + "bad.run()\nx\n") == (
        " 0 times user\n"
        'Traceback (most recent call last):\n  File "<ramify-8>", line 1, in <module>\n    bad.run()\n'
        '  File "<ramify-7>", line 5, in bad\n    raise ValueError(word)\n'
        "ValueError:  0 times user\nin program bad, <ramify-7>:5\n3\n"
    )
    assert type_in("@rf.program\ndef never(s):\n    yield\n\nnever.run()\n") == (
        "<ramify-10>:3\n        yield\n        ^^^^^\nerror: `yield` cannot stand in a program\n"
        "help: collect the values in a list and return it; stream with `options(stream=...)`\n"
    )


def test_ctrl_c_keeps_the_session(type_in: Type) -> None:
    assert type_in("x = 1\nraise KeyboardInterrupt\nx\n") == "interrupted\n1\n"


def test_the_names_of_a_file(session: Session, type_in: Type, tmp_path: Path) -> None:
    file = tmp_path / "hello_file.py"
    file.write_text("import ramify as rf\nLIMIT = 2\n" + HELLO.replace('gen("a")', 'gen("a", max_tokens=LIMIT)'))
    session.load(file)
    assert type_in("LIMIT\nr = hello.run('Bob')\n") == "2\n[user] Hi Bob\n[assistant]  2 times\n"


def test_a_program_calls_one_typed_before(type_in: Type) -> None:
    outer = "@rf.program\ndef outer(s):\n    s += 'Listen: '\n    return hello(s, 'you')\n\n"
    assert type_in(HELLO + outer + "r = outer.run()\nr.value\n") == (
        "Listen: \n[user] Hi you\n[assistant]  2 times user\n' 2 times user'\n"
    )


def completions(session: Session, line: str) -> list[str]:
    document = Document(line)
    found = NameCompleter(session, Commands(session)).get_completions(document, CompleteEvent())
    return [line[: len(line) + each.start_position] + each.text for each in found]


def test_completion(session: Session, type_in: Type) -> None:
    type_in(HELLO)
    assert completions(session, "x = hel") == ["x = hello", "x = help"]
    assert "hello.run_batch" in completions(session, "hello.run")
    assert completions(session, "rf.sel") == ["rf.select"]
    assert {":ir ", ":tree ", ":quit"} <= set(completions(session, ":"))
    assert completions(session, ":ir he") == [":ir hello"]
    assert completions(session, ":ir hello --after pro") == [":ir hello --after promote"]
    assert completions(session, "nothing_like_this.") == []
    assert completions(session, "") == []


def test_completion_of_arguments(session: Session, type_in: Type) -> None:
    type_in("@rf.program\ndef ask(s, question: str, *, tries=2):\n    s += question\n\n")
    type_in("class Bob:\n    @rf.program\n    def hear(self, s, word):\n        s += word\n\nbob = Bob()\n")
    assert completions(session, "ask.run(")[:3] == ["ask.run(question=", "ask.run(tries=", "ask.run(backend="]
    assert completions(session, "ask.run('a)b', tr")[0] == "ask.run('a)b', tries="
    assert completions(session, "ask.run(\n  question=f('x', 1), tr")[0].endswith("), tries=")
    assert "ask.run('x', question=" not in completions(session, "ask.run('x', ")
    assert "ask.run(tries=1, tries=" not in completions(session, "ask.run(tries=1, ")
    assert completions(session, "bob.hear(")[0] == "bob.hear(word="
    assert completions(session, "rf.gen('a', max_t") == ["rf.gen('a', max_tokens="]
    assert completions(session, "ask.options(temp") == ["ask.options(temperature="]
    assert completions(session, "ask.run_batch(rows, as_c") == ["ask.run_batch(rows, as_completed="]
    assert completions(session, "rf.select('x', choices_me") == ["rf.select('x', choices_method="]
    for nothing in ("ask.run(question=", "ask.run([", "'ask.run(", "# ask.run(", "nobody(", "(", "len("):
        assert completions(session, nothing) == []


def test_when_enter_runs_what_was_typed(session: Session) -> None:
    whole = ["", "x", "x = 1", ":tree", "f(:", "def f():\n    x\n", "def f():\n    x\n    ", "x = (1,\n2)\n"]
    open_ = ["def f():", "@rf.program", "def f():\n    x", "x = (1,", "x = (1,\n", "'''a\n", "@rf.program\ndef f(s):"]
    assert [is_whole(session, text) for text in whole] == [True] * len(whole)
    assert [is_whole(session, text) for text in open_] == [False] * len(open_)


def test_piped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = HELLO + "r = hello.run('é')\nr.usage.calls\nimport sys; sys.exit(5)\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert main(["repl", "--model", "scripted"]) == 5
    written = capsys.readouterr()
    assert written.err == "" and re.fullmatch(r"\[user\] Hi é\n\[assistant\] [ \w]+\n1\n", written.out)


def test_the_cache(type_in: Type, tmp_path: Path) -> None:
    assert "the model scripted has no cache here" in type_in(":cache\n")
    local = LocalBackend(model_dir(), device="cpu")
    set_default_backend(local)
    written = type_in(HELLO + 'hello.options(max_tokens=4).run("you").ok\n:cache\n')
    stats = local.stats()
    cached = stats.cached
    assert cached and f"cached    {cached} tokens in {stats.nodes} nodes, room for " in written
    assert f"hit rate  0%, 0 of {stats.prompt_tokens} prompt tokens\nevicted   0 tokens\nmemory    " in written
    type_in('hello.options(max_tokens=4).run("you").ok\n')
    again = local.stats()
    assert 0 < again.hit_tokens < stats.prompt_tokens == again.prompt_tokens // 2
    assert f", {again.hit_tokens} of {again.prompt_tokens} prompt tokens" in type_in(":cache\n")
    cached = again.cached
    path = tmp_path / "kv"
    assert f"{cached} tokens saved" in type_in(f":cache save {path}\n")
    assert "0 tokens cached" in type_in(":cache clear\n")
    assert f"{cached} tokens loaded" in type_in(f":cache load {path}\n")
    assert local.stats().cached == cached
    assert ":cache does not know what to do with drop it" in type_in(":cache drop it\n")
    local.close()
