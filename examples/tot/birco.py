"""Reads BIRCO's WhatsThatBook folder: real queries of readers over descriptions of books, which are all `plot`.

`{dev,test}_corpus.jsonl` hold `id` and `text`; `{dev,test}_queries.jsonl` hold `qid`, `text`, `relevant` and `pool`,
the ids to rank, or "all" of the split's corpus. Each split has books of its own.
"""

from pathlib import Path

from ramify.lang.rows import read_objects

from .catalogue import Book, Catalogue, Query, check_relevant

__all__ = ["is_birco", "load_birco"]


def is_birco(folder: Path) -> bool:
    """Whether a folder has BIRCO's files."""
    return (folder / "test_queries.jsonl").is_file() and (folder / "test_corpus.jsonl").is_file()


def load_birco(folder: Path) -> Catalogue:
    """Read both splits. Raises UsageError for a query about an unknown book."""
    corpora = {split: list(read_objects(folder / f"{split}_corpus.jsonl")) for split in ("dev", "test")}
    books = {line["id"]: Book(id=line["id"], plot=line["text"]) for corpus in corpora.values() for line in corpus}
    queries = {split: read_queries(folder, split, [line["id"] for line in corpora[split]]) for split in corpora}
    check_relevant(set(books), [*queries["dev"], *queries["test"]])
    return Catalogue(list(books.values()), queries["dev"], queries["test"])


def read_queries(folder: Path, split: str, corpus: list[str]) -> list[Query]:
    """The queries of a split."""
    return [
        Query(line["qid"], line["text"], line["relevant"], pool=corpus if line["pool"] == "all" else line["pool"])
        for line in read_objects(folder / f"{split}_queries.jsonl")
    ]
