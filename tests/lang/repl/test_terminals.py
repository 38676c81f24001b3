"""Terminals without colour, and narrow ones."""

from __future__ import annotations

import io
import re

import pytest
from ramify.lang.commands.table import Commands
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


def written(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    """What a terminal with these environment variables is sent."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    session = Session(Terminal())
    read_lines(COMMANDS.splitlines(keepends=True), session, Commands(session))
    return session.out.getvalue()  # type: ignore[attr-defined, no-any-return]


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
