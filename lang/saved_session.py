"""A REPL session as a Python file: what was typed and worked, with commands and what failed as comments."""

from __future__ import annotations

from pathlib import Path

from ..ir.errors import UsageError
from .session import Session

_FIRST_LINE = '"""A session of `ramify repl`."""'
_HEAD = f"""\
{_FIRST_LINE}

import ramify as rf
from ramify import *
"""
_LOADS = """
import sys
from importlib import import_module
"""


def save_session(session: Session, path: Path) -> str:
    """Write it, and say what was written. Raises UsageError for a file that is no session, or cannot be written."""
    _check_replaceable(path)
    parts = [_HEAD]
    if session.files:
        parts.append(_LOADS + "".join(map(_import_of, session.files)))
    parts += [text if is_fine else _comment(text) for text, is_fine in session.inputs]
    try:
        path.write_text("\n".join(f"{part.rstrip()}\n" for part in parts), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    num_fine = sum(is_fine for _, is_fine in session.inputs)
    return f"{num_fine:,} inputs, and as comments {len(session.inputs) - num_fine:,} commands and failed inputs"


def _check_replaceable(path: Path) -> None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            if file.readline().rstrip() == _FIRST_LINE:
                return
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    raise UsageError(f"{path} is there and is no saved session", help="save under another name")


def _import_of(path: Path) -> str:
    """What takes over the names of a file that was loaded."""
    place, module = str(path.parent), path.stem
    return (
        f"\nsys.path.insert(0, {place!r})\n"
        f"globals().update({{k: v for k, v in vars(import_module({module!r})).items() if not k.startswith('__')}})\n"
    )


def _comment(text: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in text.splitlines())
