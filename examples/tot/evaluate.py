"""How well decomposed queries find their books, beside the whole query and beside perfect clues.

In: a catalogue and the clues of its queries. Out: a `Report`; every system is measured on the test queries, and has the
weights that are best for it on the dev queries.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from .catalogue import Book, Catalogue, Query
from .experts import Expert, Scores, bm25, is_clue
from .metrics import Ranking, evaluate
from .mixture import field_scores, mixed, ranking, search_weights

__all__ = [
    "DECOMPOSED",
    "GOLD",
    "WHOLE",
    "WHOLE_BY_FIELD",
    "Margin",
    "Report",
    "clue_accuracy",
    "evaluate_clues",
    "whole_query",
]

Clues = Mapping[str, Mapping[str, str]]
WHOLE = "whole query"
WHOLE_BY_FIELD = "whole query, by field"
DECOMPOSED = "decomposed"
GOLD = "perfect clues"
RESAMPLES = 10_000


class Margin(msgspec.Struct):
    """By how much one system's mean is above another's on the same queries, and the standard error of that."""

    value: float
    error: float


class Report(msgspec.Struct):
    """What was measured. systems: each one's measures by name, of 0..1. rankings: of each system, by query id.

    margin: of Recall@5, decomposed over the whole query. clue_accuracy: of each field, the share of clues that are the
    gold ones, among test queries that have any; with_gold: Recall@5 with this one field's clues made perfect.
    """

    num_books: int
    num_dev: int
    num_test: int
    weights: dict[str, dict[str, float]]
    systems: dict[str, dict[str, float]]
    margin: Margin
    clue_accuracy: dict[str, float]
    with_gold: dict[str, float]
    rankings: dict[str, dict[str, list[str]]]


class Bench:
    """A catalogue with its experts, on which systems are weighed and measured."""

    def __init__(self, catalogue: Catalogue, experts: Mapping[str, Expert]) -> None:
        self.catalogue = catalogue
        self.books: Sequence[Book] = catalogue.books
        self.experts = experts
        self.fields = list(experts)
        self.relevant = {query.id: set(query.relevant) for query in catalogue.test}

    def scores(self, queries: Sequence[Query], clues: Clues) -> list[Scores]:
        """Each query's scores, (experts, books)."""
        return [field_scores(self.experts, clues[query.id], len(self.books)) for query in queries]

    def weigh(self, clues: Clues) -> dict[str, float]:
        """The weights that are best on the dev queries."""
        return search_weights(self.scores(self.catalogue.dev, clues), self.catalogue.dev, self.books, self.fields)

    def rank(self, clues: Clues, weights: Mapping[str, float]) -> dict[str, list[str]]:
        """The test queries' rankings."""
        return {
            query.id: ranking(mixed(scores, weights, self.fields), self.books, query.pool)
            for query, scores in zip(self.catalogue.test, self.scores(self.catalogue.test, clues), strict=True)
        }

    def measure(self, rankings: Mapping[str, Ranking]) -> dict[str, float]:
        """Every measure of the test queries' rankings."""
        return evaluate(rankings, self.relevant)


def whole_query(catalogue: Catalogue, retriever: Callable[[Sequence[str]], Expert] = bm25) -> dict[str, list[str]]:
    """The test queries' rankings by one retriever that is given the whole query and all that is known of a book."""
    found = retriever([book.document for book in catalogue.books])
    return {query.id: ranking(found(query.text), catalogue.books, query.pool) for query in catalogue.test}


def evaluate_clues(
    catalogue: Catalogue,
    clues: Clues,
    experts: Mapping[str, Expert],
    retriever: Callable[[Sequence[str]], Expert] = bm25,
) -> Report:
    """Measure all systems. clues: of each dev and test query by id; experts: by field."""
    bench = Bench(catalogue, experts)
    queries = [*catalogue.dev, *catalogue.test]
    by_field = {query.id: dict.fromkeys(bench.fields, query.text) for query in queries}
    given = {WHOLE_BY_FIELD: by_field, DECOMPOSED: clues}
    if all(query.clues for query in queries):
        given[GOLD] = {query.id: query.clues for query in queries}
    weights = {name: bench.weigh(said) for name, said in given.items()}
    rankings = {WHOLE: whole_query(catalogue, retriever)}
    rankings |= {name: bench.rank(said, weights[name]) for name, said in given.items()}
    return Report(
        num_books=len(catalogue.books),
        num_dev=len(catalogue.dev),
        num_test=len(catalogue.test),
        weights=weights,
        systems={name: bench.measure(found) for name, found in rankings.items()},
        margin=margin(rankings[DECOMPOSED], rankings[WHOLE], bench.relevant),
        clue_accuracy=clue_accuracy(catalogue.test, clues) if GOLD in given else {},
        with_gold=with_gold(bench, clues, weights[DECOMPOSED]) if GOLD in given else {},
        rankings=rankings,
    )


def margin(better: Mapping[str, Ranking], worse: Mapping[str, Ranking], relevant: Mapping[str, set[str]]) -> Margin:
    """By how much Recall@5 is higher, with the standard error of the paired bootstrap over queries."""
    gains = np.array(
        [len(books & set(better[q][:5])) - len(books & set(worse[q][:5])) for q, books in relevant.items()]
    )
    gains = gains / np.array([len(books) for books in relevant.values()])
    drawn = np.random.default_rng(0).integers(len(gains), size=(RESAMPLES, len(gains)))
    return Margin(float(gains.mean()), float(gains[drawn].mean(axis=1).std()))


def clue_accuracy(queries: Sequence[Query], clues: Clues) -> dict[str, float]:
    """Of each field, the share of clues that are the gold ones."""
    fields = list(queries[0].clues)
    return {
        field: sum(same(clues[query.id].get(field, ""), query.clues[field]) for query in queries) / len(queries)
        for field in fields
    }


def same(said: str, gold: str) -> bool:
    """Whether two clues are the same but for capitals; all ways to say nothing are."""
    return (
        said.strip().casefold() == gold.strip().casefold()
        if is_clue(said) and is_clue(gold)
        else is_clue(said) == is_clue(gold)
    )


def with_gold(bench: Bench, clues: Clues, weights: Mapping[str, float]) -> dict[str, float]:
    """Recall@5 when one field's clues are perfect and the others are as the model gave them."""
    gold = {query.id: query.clues for query in bench.catalogue.test}
    found = {}
    for field in bench.fields:
        mended = {query: {**clues[query], field: perfect.get(field, "")} for query, perfect in gold.items()}
        found[field] = bench.measure(bench.rank(mended, weights))["R@5"]
    return found
