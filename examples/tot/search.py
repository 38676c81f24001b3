"""A query to books of the invented catalogue: what `ramify run examples/tot` does."""

from functools import cache

import ramify as rf

from .catalogue import Book, invented
from .experts import Expert
from .mixture import field_scores, make_experts, mixed
from .program import decompose

WEIGHTS = {"author": 1.0, "cover": 0.5, "date": 1.0, "date_extract": 1.0, "genre": 0.5, "plot": 2.0, "title": 2.0}
"""Those that `python -m ramify.examples.tot evaluate` finds on the dev queries."""


@rf.program
def main(s, query: str, posted: str = "", k: int = 5, chat: bool = False, copied: bool = False):
    """The clues of a query and the `k` books that fit them best. posted: the day of the query, YYYY-MM-DD.

    chat, copied: as for `decompose`.
    """
    clues = decompose(s.copy(), query, posted, chat=chat, copied=copied)
    return {"clues": clues, "books": search(clues, k)}


def search(clues: dict[str, str], k: int) -> list[dict[str, object]]:
    """The `k` best books."""
    books, experts = library()
    scores = mixed(field_scores(experts, clues, len(books)), WEIGHTS, list(experts))
    return [described(books[index], scores[index]) for index in (-scores).argsort(kind="stable")[:k]]


def described(book: Book, score: float) -> dict[str, object]:
    """A book as it is shown."""
    return {"title": book.title, "author": book.author, "year": book.year, "score": round(float(score), 3)}


@cache
def library() -> tuple[list[Book], dict[str, Expert]]:
    """The invented catalogue, indexed once."""
    books = invented().books
    return books, make_experts(books)
