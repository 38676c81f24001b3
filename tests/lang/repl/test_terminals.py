"""Terminals without colour, and narrow ones."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output
from ramify.lang.commands.table import Commands
from ramify.lang.console import converse
from ramify.lang.repl import read_lines
from ramify.lang.session import Session

from .terminal import HELLO

COMMANDS = (
    HELLO + "r = hello.run_batch([{'who': 'Bob and all of the others ' * 3}])\n:passes hello\n:runs\n:tree\n:help\n"
)
COLOUR = re.compile("\x1b\\[[0-9;]*3[0-9]")


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def set_environment(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "TERM", "PROMPT_TOOLKIT_COLOR_DEPTH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def written(monkeypatch: pytest.MonkeyPatch, inputs: str = COMMANDS, **environment: str) -> str:
    """What a terminal with these environment variables is sent."""
    set_environment(monkeypatch, environment)
    session = Session(Terminal())
    read_lines(inputs.splitlines(keepends=True), session, Commands(session))
    return session.out.getvalue()  # type: ignore[attr-defined, no-any-return]


def conversed(monkeypatch: pytest.MonkeyPatch, typed: str, **environment: str) -> str:
    """The same, when it is typed into: with prompts and what is typed."""
    set_environment(monkeypatch, environment)
    terminal = Terminal()
    session = Session(terminal)
    depth = ColorDepth.from_env()
    output = Vt100_Output(terminal, lambda: Size(40, 100), environment["TERM"], depth, enable_cpr=False)
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=output):
        pipe.send_text(typed + "\x04")  # Ctrl-D
        converse(session, Commands(session))
    return terminal.getvalue()


def test_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert COLOUR.search(written(monkeypatch, TERM="xterm-256color"))
    assert not COLOUR.search(written(monkeypatch, TERM="xterm-256color", NO_COLOR="1"))
    assert "\x1b" not in written(monkeypatch, TERM="dumb")


def test_a_terminal_of_forty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    told = written(monkeypatch, TERM="dumb", COLUMNS="40", LINES="20")
    shown = told[told.index("run ") :]
    assert max(map(len, shown.splitlines())) <= 40
    words = " ".join(shown.split())
    assert "1 hello" in words and "assistant: [1] a =" in words and ":quit leave, as Ctrl-D does" in words


def test_what_is_typed_is_coloured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    typed = "x = 'typed'\rlen(x) + 2\r"
    coloured = conversed(monkeypatch, typed, TERM="xterm-256color")
    plain = conversed(monkeypatch, typed, TERM="xterm-256color", NO_COLOR="1")
    dumb = conversed(monkeypatch, typed, TERM="dumb")
    assert COLOUR.search(coloured) and not COLOUR.search(plain)
    assert "\x1b" not in dumb[dumb.index("ramify ") :]  # prompt_toolkit has made the cursor visible before
    assert all("7\n" in told for told in (coloured, plain, dumb)) and ">>> len(x) + 2" in dumb


def test_branches_have_colours_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    forks = """\
@rf.program
def forks(s):
    for branch in s.fork(3):
        branch += rf.user("Say") + rf.assistant(rf.gen("x"))

r = forks.run()
"""
    told = written(monkeypatch, forks, TERM="xterm-256color")
    labels = re.findall("\x1b\\[1;(3\\d)m(\\d) assistant: \x1b\\[0m\x1b\\[(3\\d)m", told)
    assert sorted({*labels}) == [("32", "1", "32"), ("35", "2", "35"), ("36", "0", "36")]
    assert not COLOUR.search(written(monkeypatch, forks, TERM="xterm-256color", NO_COLOR="1"))
