"""Keys on the command line."""

from __future__ import annotations

from pathlib import Path

from ...ir.errors import UsageError


def key_of(given: str) -> str:
    """A key, or behind an @ the file that it is in, so that it is in no list of processes. Raises UsageError."""
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the key's file {given[1:]} cannot be read: {error}") from None
