"""`:load` and `:reload`: files of programs; `:save`: the session as a Python file."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...ir.errors import UsageError
from ..saved_session import save_session
from ..session import Session
from .command import Command


def _load(session: Session, rest: str) -> None:
    if not rest:
        raise UsageError(":load takes a Python file", help=LOAD.form)
    _say_loaded(session, session.load(Path(rest).expanduser()))


def _reload(session: Session, rest: str) -> None:
    if not session.files:
        raise UsageError("no file was loaded", help=LOAD.form)
    changed = [file.path for file in session.files.values() if file.has_changed]
    for path in changed or [file.path for file in session.files.values()]:
        _say_loaded(session, session.load(path))


def _say_loaded(session: Session, programs: Sequence[str]) -> None:
    session.print(f"loaded; its programs are {', '.join(programs)}" if programs else "loaded; it has no programs")


def _save(session: Session, rest: str) -> None:
    if not rest:
        raise UsageError(":save takes the name of a file", help=SAVE.form)
    path = Path(rest).expanduser()
    session.print(f"{path}: {save_session(session, path)}")


def complete_path(session: Session, words: Sequence[str]) -> Iterable[str]:
    """Completes the first word to a file."""
    if len(words) != 1:
        return ()
    found = sorted(glob.glob(f"{glob.escape(words[0])}*"))
    return [f"{path}/" if Path(path).is_dir() else path for path in found]


LOAD = Command(":load", "FILE", "run a Python file and take over its names", _load, complete_path)
RELOAD = Command(":reload", "", "run the loaded files again that have changed; all, if none has", _reload)
SAVE = Command(":save", "FILE", "write the session's inputs as a Python file that runs", _save, complete_path)
