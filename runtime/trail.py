"""Puts the user's own lines into errors: into tracebacks of compiled programs, and as spans into ramify's errors."""

from __future__ import annotations

import ast
import contextlib
import dis
import os
from functools import lru_cache
from types import CodeType, TracebackType

from ..ir.errors import Cancelled, RamifyError
from ..ir.span import Span
from ..ir.syntax import walk
from .expression import Spot

_STANDARD_LIBRARY = os.path.dirname(contextlib.__file__) + os.sep
_OURS = tuple(f"ramify.{package}." for package in ("ir", "compiler", "runtime", "backends", "lang"))
_NOTE = "in program "
_RAISE = dis.opmap["RAISE_VARARGS"]


def mark(error: Exception, span: Span, program: str) -> None:
    """Say once where in a compiled program an error arose: as a frame of the traceback, and as a note."""
    if isinstance(error, Cancelled):
        return
    line = _line_in(error, span.file, program)
    if line is None:
        add_frame(error, span, program)
    if not isinstance(error, RamifyError) and not any(
        note.startswith((_NOTE, "in the generation ")) for note in getattr(error, "__notes__", ())
    ):
        error.add_note(f"{_NOTE}{program}, {span.file}:{line or span.line}")


def unmark(error: BaseException) -> None:
    """Take the note back: the error arose elsewhere, or the program has caught it, and eagerly there is none."""
    notes = [note for note in getattr(error, "__notes__", ()) if not note.startswith(_NOTE)]
    if notes:
        error.__notes__[:] = notes
    elif hasattr(error, "__notes__"):
        del error.__notes__


def locate(error: BaseException | None) -> None:
    """Give an error of ramify's that a run ends with the span of the user's code that met it."""
    if not isinstance(error, RamifyError) or error.span is not None:
        return
    theirs = _theirs(error)
    if theirs:
        error.span = Spot(theirs[-1].tb_frame.f_code, theirs[-1].tb_lasti).span()


def tidy(error: BaseException | None) -> None:
    """Leave only the user's frames in a traceback; all of them when ramify failed by a fault of its own."""
    if error is None:
        return
    entries, theirs = _entries(error), _theirs(error)
    if not theirs or (theirs[-1] is not entries[-1] and not _is_meant(error, entries[-1])):
        return
    kept: TracebackType | None = None
    for entry in reversed(theirs):
        kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    error.__traceback__ = kept


def _is_meant(error: BaseException, last: TracebackType) -> bool:
    """Whether ramify raised the error to say something, such as a TypeError, and did not just fail."""
    if isinstance(error, RamifyError):
        return True
    if not _is_ours(last) or isinstance(error, AssertionError | NotImplementedError):
        return False
    return last.tb_frame.f_code.co_code[last.tb_lasti] == _RAISE


def _entries(error: BaseException) -> list[TracebackType]:
    entries = []
    entry = error.__traceback__
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    return entries


def _theirs(error: BaseException) -> list[TracebackType]:
    """The user's frames: not ramify's, and not Python's own where they only led from the user's code to ramify's.

    (A `with s.user():` enters ramify by way of contextlib.)
    """
    entries = _entries(error)
    theirs = [entry for entry in entries if not _is_ours(entry)]
    if theirs and theirs[-1] is not entries[-1]:
        while len(theirs) > 1 and _is_pythons(theirs[-1].tb_frame.f_code.co_filename):
            theirs.pop()
    return theirs


def _is_pythons(file: str) -> bool:
    return file.startswith(_STANDARD_LIBRARY) and f"-packages{os.sep}" not in file


def _is_ours(entry: TracebackType) -> bool:
    return str(entry.tb_frame.f_globals.get("__name__", "")).startswith(_OURS)


def _line_in(error: BaseException, file: str, program: str) -> int | None:
    """The line of the program's own frame in the traceback, if it has one."""
    for entry in reversed(_entries(error)):
        code = entry.tb_frame.f_code
        if code.co_filename == file and code.co_name == program:
            return entry.tb_lineno
    return None


def add_frame(error: BaseException, span: Span, program: str) -> None:
    """Put a frame at `span` under what the traceback shows so far."""
    try:
        exec(_raising(span, program), {"__name__": "<ramify program>", "error": error})
    except BaseException as raised:
        # The first entry is this very function; the frame that was added stands under it.
        error.__traceback__ = raised.__traceback__ and raised.__traceback__.tb_next


@lru_cache(maxsize=256)
def _raising(span: Span, program: str) -> CodeType:
    """Code that raises `error` at a place of the user's source."""
    module = ast.parse("raise error")
    for node in walk(module):
        if hasattr(node, "lineno"):
            node.lineno, node.end_lineno = span.line, span.end_line  # type: ignore[attr-defined]
            node.col_offset, node.end_col_offset = span.column, span.end_column  # type: ignore[attr-defined]
    return compile(module, span.file, "exec").replace(co_name=program, co_qualname=program)
