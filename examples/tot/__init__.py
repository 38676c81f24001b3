"""Decomposed tip-of-the-tongue retrieval (arXiv 2305.15053): see program.py."""

from collections.abc import Iterator
from pathlib import Path

from ramify.ir.errors import UsageError
from ramify.lang.rows import read_objects

from .program import decompose, rerank
from .search import main

__all__ = ["decompose", "load_rows", "main", "rerank"]


def load_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows for `ramify run --data`: JSON lines with a query's `text` and the day it was `posted`, if that is known."""
    for number, record in enumerate(read_objects(path), 1):
        if "text" not in record:
            raise UsageError(f"{path}: record {number} has no `text`, the query")
        yield {"query": record["text"], "posted": record.get("posted", "")}
