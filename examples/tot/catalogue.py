"""A catalogue and the queries about it: what the files hold, and an invented one to try everything on.

A folder has `books.jsonl` and, of each split, `dev.jsonl` and `test.jsonl` with queries; a line is a `Book` or a
`Query`. The invented catalogue is drawn from the world that the embedded model knows (backends/tiny/books.py), from
seeds that its training never used.
"""

from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import TypeVar

import msgspec
from ramify.backends.tiny import books as world
from ramify.ir.errors import UsageError

__all__ = ["Book", "Catalogue", "Query", "invented", "load", "read_lines", "save"]

Record = TypeVar("Record")


class Book(msgspec.Struct):
    """A book of the catalogue. cover: what it shows, in words; image: a picture of it, for CLIP. Empty: not known."""

    id: str
    title: str = ""
    author: str = ""
    year: int | None = None
    genre: str = ""
    cover: str = ""
    plot: str = ""
    image: str = ""

    def text(self, field: str) -> str:
        """The text that a clue of a field is looked up in."""
        if field in ("date", "date_extract"):
            return "" if self.year is None else str(self.year)
        return str(getattr(self, field))

    @property
    def document(self) -> str:
        """All that is known of the book, as one text."""
        fields = ("title", "author", "date", "genre", "cover", "plot")
        return " ".join(text for text in map(self.text, fields) if text)


class Query(msgspec.Struct):
    """What a reader asks, when it was posted (YYYY-MM-DD), and the books that it means.

    clues: the gold clue of each field, where they are known. pool: the only books that are ranked; None: all.
    """

    id: str
    text: str
    relevant: list[str]
    posted: str = ""
    clues: dict[str, str] = {}
    pool: list[str] | None = None


class Catalogue(msgspec.Struct):
    """Books, and queries about them of two splits: `dev` is for choosing weights, `test` for measuring."""

    books: list[Book]
    dev: list[Query]
    test: list[Query]


def invented(num_books: int = 800, num_queries: int = 400) -> Catalogue:
    """Draw the invented catalogue, with half as many queries to choose weights by as to measure with."""
    rng = Random("tot/books")
    drawn = [world.draw_book(rng) for _ in range(num_books)]
    return Catalogue(
        books=[record(f"b{number}", book) for number, book in enumerate(drawn)],
        dev=queries("dev", drawn, num_queries // 2),
        test=queries("test", drawn, num_queries),
    )


def record(name: str, book: world.Book) -> Book:
    """An invented book as the catalogue holds it."""
    return Book(name, book.title, book.author, book.year, book.genre, book.cover, book.plot)


def queries(split: str, books: list[world.Book], count: int) -> list[Query]:
    """Draw queries about random books."""
    rng = Random(f"tot/{split}")
    drawn = []
    for number in range(count):
        meant = rng.randrange(len(books))
        asked = world.draw_question(rng, books[meant])
        drawn.append(Query(f"{split}{number}", asked.text, [f"b{meant}"], asked.posted, asked.clues))
    return drawn


def save(catalogue: Catalogue, folder: Path) -> None:
    """Write a catalogue's files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("books", "dev", "test"):
        lines = msgspec.json.Encoder().encode_lines(getattr(catalogue, name))
        (folder / f"{name}.jsonl").write_bytes(lines)


def load(folder: Path) -> Catalogue:
    """Read a catalogue's files. Raises UsageError that names the file and line that is wrong."""
    books = read_lines(folder / "books.jsonl", Book)
    dev, test = (read_lines(folder / f"{split}.jsonl", Query) for split in ("dev", "test"))
    check_relevant({book.id for book in books}, [*dev, *test])
    return Catalogue(books, dev, test)


def read_lines(path: Path, kind: type[Record]) -> list[Record]:
    """Read JSON lines of one kind of record."""
    if not path.is_file():
        raise UsageError(
            f"there is no {path}",
            help="a catalogue is a folder with books.jsonl, dev.jsonl and test.jsonl: "
            "`python -m ramify.examples.tot catalogue --out DIR` writes one to look at",
        )
    records, decoder = [], msgspec.json.Decoder(kind)
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            records += [decoder.decode(line)] if line.strip() else []
        except msgspec.DecodeError as error:
            raise UsageError(f"line {number} of {path} is no {kind.__name__.lower()}: {error}") from None
    return records


def check_relevant(known: set[str], asked: Iterable[Query]) -> None:
    """Raises UsageError for a query whose book the catalogue does not hold."""
    for query in asked:
        for name in query.relevant:
            if name not in known:
                raise UsageError(f"query {query.id} is about {name!r}, which is no id of books.jsonl")
