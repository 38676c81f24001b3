"""A session to type lines into."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from ramify.backends.scripted import ScriptedBackend
from ramify.lang.commands.table import Commands
from ramify.lang.options import set_default_backend
from ramify.lang.repl import read_lines
from ramify.lang.session import Session

from .terminal import Type


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
