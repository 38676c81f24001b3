"""A session to type into: piped, and on a terminal, in tmux."""

from __future__ import annotations

import io
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ramify.backends.scripted import ScriptedBackend
from ramify.lang.commands.table import Commands
from ramify.lang.options import set_default_backend
from ramify.lang.repl import read_lines
from ramify.lang.session import Session

from .terminal import HELLO, Tmux, Type


@pytest.fixture(autouse=True)
def backend() -> Iterator[ScriptedBackend]:
    backend = ScriptedBackend(lambda text, params: f" {text.count('user')} times user")
    set_default_backend(backend)
    yield backend
    set_default_backend(None)


@pytest.fixture
def session() -> Session:
    return Session(io.StringIO())


@pytest.fixture
def type_in(session: Session) -> Type:
    """Types lines into the session and gives what it writes, without the times."""
    commands = Commands(session)

    def type_in(text: str) -> str:
        session.out.seek(0)
        session.out.truncate()
        read_lines(text.splitlines(keepends=True), session, commands)
        written = session.out.getvalue()  # type: ignore[attr-defined]
        return re.sub(r"[\d.]+ m?s$", "TIME", written, flags=re.MULTILINE)

    return type_in


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed: the REPL is not tried on a terminal")
    (tmp_path / "hello_file.py").write_text("import ramify as rf\n\n" + HELLO)
    repl = f"{sys.executable} -m ramify.lang.cli repl hello_file.py --model scripted:1.5"
    terminal = Tmux(f"cd {tmp_path} && XDG_STATE_HOME={tmp_path} {repl}; echo left with $?; sleep 60")
    yield terminal
    terminal.end()
