"""Retrievers of one field: what a clue makes of each book of the catalogue, as an array of scores, (books,).

Lexical (BM25), dense (a bi-encoder, also one that you have trained), CLIP for pictures of covers, and the year as a
code.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from ramify.ir.errors import UsageError

from .catalogue import Book

__all__ = ["Expert", "Scores", "bm25", "expert", "is_clue", "retriever", "years"]

Scores = NDArray[np.float64]
FIRST_YEAR, LAST_YEAR = 1975, 2023
NUM_CODES = LAST_YEAR - FIRST_YEAR
YEARS_AHEAD = 15
NOWHERE = (np.empty(0, dtype=np.intp), np.empty(0))


class Expert(Protocol):
    """A retriever over a catalogue."""

    def __call__(self, clue: str) -> Scores:
        """The score of each book."""


def is_clue(text: str) -> bool:
    """Whether a model's reply says anything, so that it is not empty and not N/A."""
    return text.strip().rstrip(".").upper() not in ("", "N/A", "NA", "NONE")


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"\w+", text.lower())


def bm25(texts: Sequence[str]) -> Expert:
    """BM25 over one text for each book. Raises UsageError where rank_bm25 is missing, or no text has a word."""
    try:
        from rank_bm25 import BM25Okapi
    except ImportError:
        raise UsageError("BM25 needs rank_bm25", help="pip install 'ramify[examples]'") from None
    split = [words(text) for text in texts]
    if not any(split):
        raise UsageError("BM25 has nothing to look clues up in: no book has this field")
    found = postings(BM25Okapi(split))

    def scores(clue: str) -> Scores:
        total = np.zeros(len(texts))
        for word in words(clue):
            books, gains = found.get(word, NOWHERE)
            total[books] += gains
        return total

    return scores


def postings(index: Any) -> dict[str, tuple[NDArray[np.intp], Scores]]:
    """Where each word stands and what it adds to the scores there, so that a clue looks at no other book."""
    places: dict[str, list[int]] = {}
    counts: dict[str, list[int]] = {}
    for book, frequencies in enumerate(index.doc_freqs):
        for word, count in frequencies.items():
            places.setdefault(word, []).append(book)
            counts.setdefault(word, []).append(count)
    scale = index.k1 * (1 - index.b + index.b * np.array(index.doc_len) / index.avgdl)
    found = {}
    for word, books in places.items():
        count = np.array(counts[word])
        found[word] = (np.array(books), index.idf[word] * count * (index.k1 + 1) / (count + scale[books]))
    return found


def encoder(model: str) -> Any:
    """A model of sentence-transformers: a name, or the folder of one that was trained."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise UsageError("dense experts need sentence-transformers", help="pip install 'ramify[dense]'") from None
    try:
        return SentenceTransformer(model)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot load {model!r} with sentence-transformers: {error}") from None


def dense(texts: Sequence[str], model: str) -> Expert:
    """Cosine similarity of a clue with one text for each book under a bi-encoder."""
    return similarity(encoder(model), [text or None for text in texts])


def clip(images: Sequence[str], model: str) -> Expert:
    """Cosine similarity of a clue with one picture for each book, given as a file, under a CLIP model."""
    if not any(images):
        raise UsageError(
            "CLIP has no picture to look at: no book has an `image`",
            help="give books.jsonl the files of the covers as `image`, or use bm25 or dense over the described covers",
        )
    return similarity(encoder(model), [picture(image) if image else None for image in images])


def picture(path: str) -> Any:
    """A picture, opened. Raises UsageError if it cannot be."""
    try:
        from PIL import Image

        return Image.open(path).convert("RGB")
    except ImportError:
        raise UsageError("pictures of covers need pillow", help="pip install pillow") from None
    except OSError as error:
        raise UsageError(f"cannot read the picture {path}: {error}") from None


def similarity(model: Any, items: Sequence[Any]) -> Expert:
    """Cosine similarity of a clue with each item; one that is None is as unlike as the most unlike."""
    there = [index for index, item in enumerate(items) if item is not None]
    matrix = np.asarray(model.encode([items[index] for index in there], normalize_embeddings=True), dtype=np.float64)

    def scores(clue: str) -> Scores:
        found = matrix @ np.asarray(model.encode(clue, normalize_embeddings=True), dtype=np.float64)
        placed = np.full(len(items), found.min())
        placed[there] = found
        return placed

    return scores


def years(published: Sequence[int | None]) -> Expert:
    """The paper's code of 48 values: 1 for a book that was out by 14 years after the clue's year, else 0.

    A book's code has ones from its year (1975 if not known) upward. A query's has a single one; the score is their
    product. A clue without a year of four digits says nothing.
    """
    codes = np.stack([book_code(FIRST_YEAR if year is None else year) for year in published])

    def scores(clue: str) -> Scores:
        year = re.search(r"\b\d{4}\b", clue)
        return codes @ query_code(int(year[0])) if year else np.zeros(len(codes))

    return scores


def book_code(year: int) -> Scores:
    """Ones from the book's year upward, (48,)."""
    return np.where(np.arange(NUM_CODES) >= np.clip(year - FIRST_YEAR, 0, NUM_CODES - 1), 1.0, 0.0)


def query_code(year: int) -> Scores:
    """A single one, (48,)."""
    code = np.zeros(NUM_CODES)
    code[max(int(np.clip(year + YEARS_AHEAD, FIRST_YEAR, LAST_YEAR)) - FIRST_YEAR - 1, 0)] = 1
    return code


BI_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
CLIP = "clip-ViT-B-32"


def retriever(kind: str) -> Callable[[Sequence[str]], Expert]:
    """What makes an expert of any texts: `bm25`, `dense`, or `dense:MODEL`. Raises UsageError for another kind."""
    name, _, model = kind.partition(":")
    if name == "dense":
        return lambda texts: dense(texts, model or BI_ENCODER)
    if kind == "bm25":
        return bm25
    raise UsageError(f"{kind!r} is no retriever of texts", help="it is bm25, dense, or dense:MODEL")


def expert(kind: str, field: str, books: Sequence[Book]) -> Expert:
    """The expert of a field: a retriever of texts, for the cover also `clip[:MODEL]`, for the date also `year`.

    Raises UsageError for another kind.
    """
    name, _, model = kind.partition(":")
    if kind == "year" and field == "date":
        return years([book.year for book in books])
    if name == "clip" and field == "cover":
        return clip([book.image for book in books], model or CLIP)
    return retriever(kind)([book.text(field) for book in books])
