"""`ramify repl`: a Python prompt that knows programs, on a terminal (console.py) or piped."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from ..ir.errors import UsageError
from .commands.table import Commands
from .failures import wants_debug
from .loading import load_file, split_target
from .options import set_default_backend
from .session import Session

BANNER = "ramify {version}: Python with programs; :help lists the commands, Ctrl-D leaves"


def repl_command(given: argparse.Namespace) -> int:
    """Read inputs until they end. Returns the exit code. Raises what loading the file raises."""
    if given.model is not None:
        set_default_backend(given.model)
    session = Session(sys.stdout, debug=given.debug or wants_debug())
    if given.target is not None:
        path, name = split_target(given.target)
        if name is not None:
            raise UsageError(f"ramify repl takes a file, not one of its programs: {path}")
        session.preload(load_file(path))
    commands = Commands(session)
    try:
        if sys.stdin.isatty():
            from .console import converse

            converse(session, commands)
        else:
            read_lines(sys.stdin, session, commands)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def read_lines(lines: Iterable[str], session: Session, commands: Commands) -> None:
    """Execute inputs that come line by line: a block ends before a line that is not part of it.

    An empty line does not end it, since code that was written in a file has such lines inside its functions.
    """
    text = ""
    is_skipping = False
    for line in lines:
        line = line.rstrip("\r\n")
        if text and session.ends_before(text, line):
            session.execute(text)
            text = ""
        # After what is wrong for good, the rest of its block would be wrong once more, line by line.
        is_skipping = is_skipping and session.stays_in_block(line)
        if is_skipping:
            continue
        if not text and line.lstrip().startswith(":"):
            commands.do(line.strip())
            continue
        text = f"{text}\n{line}" if text else line
        if not text.strip():
            text = ""
        elif line.strip() and session.is_complete(text):
            session.execute(text)
            is_skipping = not session.parses(text)
            text = ""
    if text:
        session.execute(text)
