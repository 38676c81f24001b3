"""Measures of a ranking: recall, nDCG, reciprocal rank, average precision. Each is a mean over queries, of 0..1."""

from collections.abc import Callable, Mapping, Sequence, Set
from math import log2

__all__ = ["average_precision", "evaluate", "ndcg", "recall", "reciprocal_rank"]

Ranking = Sequence[str]
Measure = Callable[[Ranking, Set[str]], float]


def recall(cutoff: int) -> Measure:
    """The share of the relevant books among the first `cutoff`."""
    return lambda ranking, relevant: len(relevant & set(ranking[:cutoff])) / len(relevant)


def ndcg(cutoff: int) -> Measure:
    """Discounted gain of the first `cutoff`, as a share of what the best ranking has; a book is relevant or not."""

    def measure(ranking: Ranking, relevant: Set[str]) -> float:
        gain = sum(1 / log2(rank + 1) for rank, name in enumerate(ranking[:cutoff], 1) if name in relevant)
        return gain / sum(1 / log2(rank + 1) for rank in range(1, min(len(relevant), cutoff) + 1))

    return measure


def reciprocal_rank(cutoff: int | None = None) -> Measure:
    """One over the rank of the first relevant book, or 0 if there is none among the first `cutoff`."""
    return lambda ranking, relevant: next(
        (1 / rank for rank, name in enumerate(ranking[:cutoff], 1) if name in relevant), 0.0
    )


def average_precision(ranking: Ranking, relevant: Set[str]) -> float:
    """The mean, over the relevant books, of the precision at each one's rank."""
    ranks = [rank for rank, name in enumerate(ranking, 1) if name in relevant]
    return sum(found / rank for found, rank in enumerate(ranks, 1)) / len(relevant)


MEASURES: dict[str, Measure] = {
    **{f"R@{cutoff}": recall(cutoff) for cutoff in (1, 5, 10, 20, 100)},
    "nDCG@10": ndcg(10),
    "MRR": reciprocal_rank(),
    "MRR@10": reciprocal_rank(10),
    "MAP": average_precision,
}


def evaluate(run: Mapping[str, Ranking], relevant: Mapping[str, Set[str]]) -> dict[str, float]:
    """Every measure of a run: rankings by query id. A query of `relevant` that the run lacks counts as not found."""
    return {
        name: sum(measure(run.get(query, ()), books) for query, books in relevant.items()) / len(relevant)
        for name, measure in MEASURES.items()
    }
