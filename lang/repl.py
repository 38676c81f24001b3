"""`ramify repl`: a Python prompt that knows programs, on a terminal (console.py) or piped."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..ir.errors import UsageError
from .commands.recording import end_tape
from .commands.table import Commands, is_command
from .failures import wants_debug
from .loading import split_target
from .options import set_default_backend
from .session import Session

BANNER = "ramify {version}: Python with programs; :help lists the commands, Ctrl-D leaves"


def repl_command(given: argparse.Namespace) -> int:
    """Read inputs until they end. Returns the exit code. Raises what loading the file raises."""
    if given.model is not None:
        set_default_backend(given.model)
    script = None if given.script is None else _read(Path(given.script))
    session = Session(sys.stdout, debug=given.debug or wants_debug())
    if given.target is not None:
        path, name = split_target(given.target)
        if name is not None:
            raise UsageError(f"ramify repl takes a file, not one of its programs: {path}")
        session.load(path)
    commands = Commands(session)
    try:
        if script is not None:
            return run_script(script, session, commands, keeps_going=given.keep_going)
        if sys.stdin.isatty():
            from .console import converse

            converse(session, commands)
        else:
            read_lines(sys.stdin, session, commands)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        if session.debugger is not None:
            session.debugger.quit()
        if session.tape is not None:
            print(end_tape(session))
    return 0


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the script {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def read_lines(lines: Iterable[str], session: Session, commands: Commands) -> None:
    """Do what inputs say that come line by line."""
    for text in inputs(lines, session):
        session.say_what_changed()
        commands.take(text)


def run_script(lines: Iterable[str], session: Session, commands: Commands, *, keeps_going: bool = False) -> int:
    """The same, with each input shown behind a prompt. Returns 1 if one failed, which ends it unless it keeps going."""
    code = 0
    for text in inputs(lines, session):
        session.say_what_changed()
        for number, line in enumerate(text.split("\n")):
            session.print(f"{'... ' if number else session.prompt}{line}".rstrip())
        if not commands.take(text):
            code = 1
            if not keeps_going:
                break
    return code


def inputs(lines: Iterable[str], session: Session) -> Iterator[str]:
    """Commands, and inputs of Python: a block ends before a line that is not part of it.

    An empty line does not end it, since code that was written in a file has such lines inside its functions.
    """
    text = ""
    is_skipping = False
    for line in lines:
        line = line.rstrip("\r\n")
        if text and session.ends_before(text, line):
            yield text
            text = ""
        # After what is wrong for good, the rest of its block would be wrong once more, line by line.
        is_skipping = is_skipping and session.stays_in_block(line)
        if is_skipping:
            continue
        if not text and (is_command(line) or (session.debugger is not None and line.strip())):
            yield line.strip()
            continue
        text = f"{text}\n{line}" if text else line
        if not text.strip():
            text = ""
        elif line.strip() and session.is_complete(text):
            yield text
            is_skipping = not session.parses(text)
            text = ""
    if text:
        yield text
