"""Retrievers: which documents of an API database go with a question.

none    no document: the model answers from memory
bm25    BM25Okapi over texts split at blanks, as in Gorilla (arXiv 2305.15334): a record is its `str`
dense   cosine of sentence embeddings (sentence-transformers), of any model
oracle  the document of the API that answers the question
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from ramify.ir.errors import UsageError

from .data import Record, load_database

__all__ = ["DENSE_MODEL", "RETRIEVERS", "Bm25", "Dense", "retrieve"]

RETRIEVERS = ("none", "bm25", "dense", "oracle")
DENSE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class Bm25:
    """BM25 with k1 1.5, b 0.75 and epsilon 0.25, as rank_bm25's BM25Okapi has it."""

    def __init__(self, documents: Sequence[str]) -> None:
        """Index documents. Raises UsageError where rank_bm25 is missing."""
        try:
            from rank_bm25 import BM25Okapi
        except ImportError as error:
            raise UsageError(
                "the retriever bm25 needs rank_bm25, which is not installed",
                help="pip install 'ramify[examples]', or choose another retriever",
            ) from error
        self.index = BM25Okapi([document.split(" ") for document in documents], k1=1.5, b=0.75, epsilon=0.25)

    def top(self, question: str, k: int) -> list[int]:
        """The indices of the k best documents, the best first."""
        scores = self.index.get_scores(question.split(" "))
        # Equal scores come in the order in which numpy's plain sort leaves them, as in Gorilla's released questions.
        # Of float64 that depends on the processor, of long doubles it does not.
        return [int(index) for index in np.argsort(scores.astype(np.longdouble))[::-1][:k]]


class Dense:
    """Cosine similarity of sentence embeddings."""

    def __init__(self, documents: Sequence[str], model: str) -> None:
        """Embed documents; `model` is a name or a directory.

        Raises UsageError where sentence-transformers is missing, or knows no such model.
        """
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise UsageError(
                f"the retriever dense needs sentence-transformers, which cannot be imported: {error}",
                help="pip install 'ramify[dense]', or choose another retriever",
            ) from error
        try:
            self.model: Any = SentenceTransformer(model)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"sentence-transformers cannot load {model!r}: {error}",
                help="give the directory of one (--dense-model)",
            ) from error
        self.embeddings = self.embed(documents)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors, (texts, width)."""
        return np.asarray(self.model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False))

    def top(self, question: str, k: int) -> list[int]:
        """The indices of the k nearest documents, the nearest first."""
        scores = self.embeddings @ self.embed([question])[0]
        return [int(index) for index in np.argsort(-scores, kind="stable")[:k]]


@cache
def index(api: str, retriever: str, dense_model: str) -> Bm25 | Dense:
    """The index of a database, made once."""
    documents = [str(record) for record in load_database(api)]
    return Bm25(documents) if retriever == "bm25" else Dense(documents, dense_model)


def retrieve(
    question: str,
    retriever: str,
    k: int,
    api: str = "",
    reference: Record | None = None,
    dense_model: str = DENSE_MODEL,
) -> list[Record]:
    """The documents for a question, the best first.

    Raises UsageError for a retriever that there is not or is not installed, k < 1, or an oracle without `reference`.
    """
    if retriever not in RETRIEVERS:
        raise UsageError(f"there is no retriever {retriever!r}", help=f"choose one of {', '.join(RETRIEVERS)}")
    if k < 1:
        raise UsageError(f"k is {k}: a retriever gives at least one document", help="retriever=none gives none")
    if retriever == "none":
        return []
    if retriever == "oracle":
        if reference is None:
            raise UsageError(
                "the oracle needs to know which API answers the question", help="give its record as reference"
            )
        return [reference]
    return [load_database(api)[found] for found in index(api, retriever, dense_model).top(question, k)]
