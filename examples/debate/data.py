"""Data to debate over: a row for each question."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ramify.ir.errors import UsageError

__all__ = ["load_rows", "records"]


def load_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows for a debate: of JSON lines or a JSON list of objects, each one's "question", and "claim" if it has one; of
    other text, each line.
    """
    for record in records(path):
        yield {name: record[name] for name in ("question", "claim") if name in record}


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file. Raises UsageError for one without a question."""
    text = path.read_text(encoding="utf-8")
    if path.suffix not in (".json", ".jsonl"):
        found: list[Any] = [{"question": line} for line in text.splitlines() if line.strip()]
    elif text.lstrip().startswith("["):
        found = json.loads(text)
    else:
        found = [json.loads(line) for line in text.splitlines() if line.strip()]
    for number, record in enumerate(found, 1):
        if not isinstance(record, dict) or not isinstance(record.get("question"), str):
            raise UsageError(f'{path}: record {number} has no text "question"')
        yield record
