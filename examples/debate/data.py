"""Data to debate over: a row for each question."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ramify.ir.errors import UsageError
from ramify.lang.rows import read_objects

__all__ = ["load_rows", "records"]


def load_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows for a debate: of JSON lines or a JSON list of objects, each one's "question", and "claim" if it has one; of
    other text, each line.
    """
    for record in records(path):
        yield {name: record[name] for name in ("question", "claim") if name in record}


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file. Raises UsageError for one without a question."""
    if path.suffix in (".json", ".jsonl"):
        found: Iterable[dict[str, Any]] = read_objects(path)
    else:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = ({"question": line} for line in lines if line.strip())
    for number, record in enumerate(found, 1):
        if not isinstance(record.get("question"), str):
            raise UsageError(f'{path}: record {number} has no text "question"')
        yield record
