"""The files that a row's arguments name, as the row found them: a template, say, that the program reads by its path.

They are written beside the row, so that a resumed batch can tell that one is another now.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

# Of larger files only the size is looked at.
_MOST_BYTES = 1 << 26


def named_files(values: Iterable[Any]) -> dict[str, str]:
    """The files that some arguments name, each with a hash of what is in it; {} where none does."""
    names = [str(value) for value in values if value and isinstance(value, str | PathLike)]
    return {name: content for name in names if (content := file_content(name)) is not None}


def file_content(name: str) -> str | None:
    """A hash of what is in a file: 16 hexadecimal digits, or its size if it is large. None where there is no file."""
    try:
        found = os.stat(name)
        if not stat.S_ISREG(found.st_mode):
            return None
        return _hashed(os.path.abspath(name), found.st_size, found.st_mtime_ns)
    except (OSError, ValueError):  # a text that is no path, or a file that may not be read
        return None


@lru_cache(maxsize=256)
def _hashed(path: str, size: int, changed_ns: int) -> str:
    if size > _MOST_BYTES:
        return f"{size} bytes"
    return hashlib.blake2b(Path(path).read_bytes(), digest_size=8).hexdigest()
