"""`ramify explain`: what a program over the rows of a file would cost, before it is run."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..ir.errors import UsageError
from .loading import is_saved, load_file, load_saved, split_target
from .parameters import parse_arguments
from .plain import to_json
from .program import Program
from .rows import read_rows
from .run_command import configured


def explain_command(given: argparse.Namespace) -> int:
    """Predict the program that is named, and run it if --actual says so. Returns the exit code."""
    out = sys.stdout
    # What the user's code prints must not mix with JSON.
    with contextlib.redirect_stdout(sys.stderr) if given.json else contextlib.nullcontext():
        path, name = split_target(given.target)
        loaded = load_saved(path, trust=given.trust) if is_saved(path) else load_file(path)
        program = configured(loaded.runnable(name), given)
        shared = parse_arguments(program, given.arg)
        rows = _rows(program, shared, None if given.data is None else read_rows(Path(given.data), loaded))
        found = program.explain(rows, actual=given.actual, run_host=given.run_host, passes=not given.no_passes)
    if given.html is not None:
        _write(Path(given.html), found.html())
    if given.json:
        print(to_json(found.to_dict()).decode(), file=out)
    else:
        found.show(out)
    return 1 if found.failures else 2 if found.impossible is not None else 0


def _rows(
    program: Program, shared: dict[str, Any], read: Iterable[dict[str, Any]] | None
) -> list[dict[str, Any]] | None:
    """The rows to predict; None where no argument is given. Raises UsageError if a single run lacks one."""
    if read is not None:
        return [{**shared, **row} for row in read]
    if shared:
        program.signature.bind((), shared)
    return [shared] if shared else None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
