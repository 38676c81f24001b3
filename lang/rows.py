"""Files of JSON objects: the rows of a data run, and what the examples read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..ir.errors import UsageError
from ..ir.span import underline
from .loading import Loaded

Row = dict[str, Any]
# How many characters of a broken line are shown.
_SHOWN = 80


def read_rows(path: Path, loaded: Loaded) -> list[Row]:
    """The rows in a file: by the program file's own `load_rows` if it has one, else JSON lines or a JSON list.

    Raises UsageError that names the line or row which is no object, and what `load_rows` raises.
    """
    if not path.exists():  # a pipe, as in `--data <(...)`, is as good as a file
        raise UsageError(f"there is no data file {str(path)!r}")
    if loaded.load_rows is not None:
        made = loaded.load_rows(path)
        if not isinstance(made, Iterable):
            raise UsageError(f"load_rows of {loaded.path} returned {type(made).__name__}, not an iterable of dicts")
        return [_checked(row, f"row {number} of load_rows") for number, row in enumerate(made)]
    return list(read_objects(path))


def read_objects(path: Path) -> Iterator[Row]:
    """The objects of a file of JSON lines, or of one JSON list.

    Raises UsageError that names the line or item that is no object, also for a file that cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the data file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if text.lstrip().startswith("["):
        for number, row in enumerate(_json(text, path, 1)):
            yield _checked(row, f"{path}: item {number}")
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _checked(_json(line, path, number), f"{path}:{number}")


def _json(text: str, path: Path, first_line: int) -> Any:
    """What a part of the file says that begins at a line. Raises UsageError, with the place where it is no JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line, column = text.split("\n")[error.lineno - 1], error.colno - 1
        start = max(0, column - _SHOWN // 2)
        shown = underline(line[start : start + _SHOWN], column - start, column - start + 1)
        where = f"{path}:{first_line + error.lineno - 1}"
        raise UsageError(
            "\n".join([f"{where} is not JSON: {error.msg[:1].lower()}{error.msg[1:]}", *shown]),
            help="data are JSON lines or a JSON list; for other formats the program's file defines load_rows(path)",
        ) from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, lists in lists in lists
        raise UsageError(f"{path}:{first_line} cannot be read: {error}") from None


def _checked(row: Any, where: str) -> Row:
    if not isinstance(row, Mapping) or not all(isinstance(key, str) for key in row):
        kind = type(row).__name__
        raise UsageError(f"{where} is {kind}, not an object")
    return dict(row)
