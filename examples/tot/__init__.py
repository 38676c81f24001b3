"""Decomposed tip-of-the-tongue retrieval (arXiv 2305.15053): see program.py."""

import json
from collections.abc import Iterator
from pathlib import Path

from .program import decompose, rerank
from .search import main

__all__ = ["decompose", "load_rows", "main", "rerank"]


def load_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows for `ramify run --data`: JSON lines with a query's `text` and the day it was `posted`, if that is known."""
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        yield {"query": record["text"], "posted": record.get("posted", "")}
