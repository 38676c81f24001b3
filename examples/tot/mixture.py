"""From clues to a ranking: each field's expert scores the books by its clue, and the scores are summed with weights.

The scores of a clue are scaled to 0..1 over the catalogue, so that an expert gives its best book 1 whatever its scale;
N/A gives 0 to all. Weights are found on queries whose book is known, by trying all combinations of a grid.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from .catalogue import Book, Query
from .experts import Expert, Scores, expert, is_clue

__all__ = ["EXPERTS", "GRID", "field_scores", "make_experts", "mixed", "ranking", "search_weights"]

EXPERTS = {
    "author": "bm25",
    "cover": "bm25",
    "date": "year",
    "date_extract": "bm25",
    "genre": "bm25",
    "plot": "bm25",
    "title": "bm25",
}
GRID = (0.0, 0.5, 1.0, 2.0)
CHUNK = 2_000_000


def make_experts(books: Sequence[Book], kinds: Mapping[str, str] = EXPERTS) -> dict[str, Expert]:
    """The expert of each field that some book has."""
    known = [field for field in kinds if any(book.text(field) or (field == "cover" and book.image) for book in books)]
    return {field: expert(kinds[field], field, books) for field in known}


def normalized(scores: Scores) -> Scores:
    """Scores with the lowest as 0 and the highest as 1; all 0 if they are the same."""
    span = scores.max() - scores.min()
    return (scores - scores.min()) / span if span > 0 else np.zeros_like(scores)


def field_scores(experts: Mapping[str, Expert], clues: Mapping[str, str], num_books: int) -> Scores:
    """What each expert makes of its clue, (experts, books)."""
    return np.stack(
        [
            normalized(experts[field](clues[field])) if is_clue(clues.get(field, "")) else np.zeros(num_books)
            for field in experts
        ]
    )


def mixed(scores: Scores, weights: Mapping[str, float], fields: Sequence[str]) -> Scores:
    """The weighted sum of the fields' scores, (books,)."""
    return np.array([weights[field] for field in fields]) @ scores


def ranking(scores: Scores, books: Sequence[Book], pool: Sequence[str] | None = None) -> list[str]:
    """The ids of the books, the best first; of equal ones in the catalogue's order. pool: only these."""
    order = np.argsort(-scores, kind="stable")
    names = [books[index].id for index in order]
    if pool is None:
        return names
    kept = set(pool)
    return [name for name in names if name in kept]


def search_weights(
    scores: Sequence[Scores], queries: Sequence[Query], books: Sequence[Book], fields: Sequence[str]
) -> dict[str, float]:
    """The weights of the grid with the best mean reciprocal rank; of equally good ones, the first.

    scores: for each query (experts, books). Only the first relevant book of a query counts; half of the books that
    score as it does are taken to come before it.
    """
    grid = np.array([weights for weights in product(GRID, repeat=len(fields)) if max(weights) == max(GRID)])
    place = {book.id: index for index, book in enumerate(books)}
    total = np.zeros(len(grid))
    for found, query in zip(scores, queries, strict=True):
        target = place[query.relevant[0]]
        total += 1 / ranks(found - found[:, [target]], grid)
    return dict(zip(fields, grid[int(total.argmax())].tolist(), strict=True))


def ranks(margins: Scores, grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of the book whose margins are 0 under each weights of the grid. margins: (experts, books)."""
    return np.concatenate([rank for rank in rank_parts(margins.astype(np.float32), grid.astype(np.float32))])


def rank_parts(margins: NDArray[np.float32], grid: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
    """The same in parts that fit the memory."""
    size = max(CHUNK // margins.shape[1], 1)
    for start in range(0, len(grid), size):
        sums = grid[start : start + size] @ margins
        yield 1 + (sums > 1e-6).sum(axis=1) + ((np.abs(sums) <= 1e-6).sum(axis=1) - 1) / 2
