"""How errors are shown to people: ramify's as they say themselves, those of user code with the user's frames only."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from ..ir.errors import RamifyError

_ROOT = Path(__file__).resolve().parents[1]
_OWN = tuple(f"{_ROOT / folder}{os.sep}" for folder in ("lang", "compiler", "ir", "runtime", "backends"))
_OWN_DOOR = str(_ROOT / "__init__.py")


def wants_debug() -> bool:
    """Whether the environment asks for everything (RAMIFY_DEBUG is set, and not to 0)."""
    return os.environ.get("RAMIFY_DEBUG", "0") not in ("", "0")


def describe(error: BaseException, *, debug: bool = False) -> str:
    """The error as text without a last line end; `debug` shows every frame."""
    if debug:
        return "".join(traceback.format_exception(error)).rstrip("\n")
    if isinstance(error, RamifyError):
        return _ramify_error(error)
    return user_traceback(error)


def is_of_stdout(error: OSError) -> bool:
    """Whether it is ramify that could not print, rather than the user's code that met an error of its own.

    (Of a file that ramify writes, such an error is a UsageError.) A pipe that was closed is everybody's.
    """
    if isinstance(error, BrokenPipeError):
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return error.filename is None and _is_internal(frame.f_code.co_filename)


def _ramify_error(error: RamifyError) -> str:
    text = RamifyError.__str__(error)  # some errors are shown to models, too, and say less of themselves there
    if error.span is None or not text.startswith(str(error.span)):
        text = f"error: {text}"
    return "\n".join([text, *(f"  {note}" for note in getattr(error, "__notes__", ()))])


def user_traceback(error: BaseException) -> str:
    """The traceback as Python shows it, without ramify's own frames and the import machinery's."""
    shown = traceback.TracebackException.from_exception(error)
    _strip(shown, set())
    return "".join(shown.format()).rstrip("\n")


def _strip(shown: traceback.TracebackException, seen: set[int]) -> None:
    if id(shown) in seen:
        return
    seen.add(id(shown))
    frames = [frame for frame in shown.stack if not _is_internal(frame.filename)]
    if frames:  # without any of the user's, it is a fault of ramify's, and all of them are of use
        shown.stack = traceback.StackSummary.from_list(frames)
    for other in (shown.__cause__, shown.__context__, *(shown.exceptions or ())):
        if other is not None:
            _strip(other, seen)


def _is_internal(file: str) -> bool:
    path = os.path.abspath(file) if not file.startswith("<") else file
    return path.startswith((*_OWN, "<frozen importlib")) or path in (_OWN_DOOR, _console_script())


def _console_script() -> str:
    return os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] else ""
