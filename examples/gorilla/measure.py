"""What docs/gorilla.md reports of a model: right and hallucinated calls, free and constrained, and what prompts share.

`python -m ramify.examples.gorilla measure --out figures.json --svg docs/gorilla.svg`
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ramify as rf
from ramify.examples.plot import plot

from .data import Question, Record
from .evaluate import Score, Scorer, tally
from .program import call_api
from .template import ORDERS

__all__ = ["Accuracy", "Sharing", "accuracies", "as_json", "draw", "sharings"]

COLOURS = {
    "right call": "#2f7d4f",
    "right domain only": "#9ccf9c",
    "wrong": "#e0b25a",
    "hallucinated": "#c2452d",
    "no call": "#9aa4b0",
}
Asked = Sequence[tuple[Question, Record]]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The score of one way of asking."""

    retriever: str
    k: int
    constrained: bool
    score: Score

    @property
    def name(self) -> str:
        """How questions were asked."""
        documents = f"{self.retriever}, k={self.k}" if self.retriever == "bm25" else self.retriever
        return f"{documents}, {'constrained' if self.constrained else 'free'}"


@dataclass(frozen=True, slots=True)
class Sharing:
    """What the cache serves of all prompts in one order, from an empty cache on."""

    retriever: str
    k: int
    order: str
    prompt_tokens: int
    cached_tokens: int

    def __str__(self) -> str:
        share = self.cached_tokens / self.prompt_tokens
        told = f"{self.prompt_tokens:,} tokens, {self.cached_tokens:,} cached ({share:.0%})"
        return f"{self.retriever}, k={self.k}, {self.order}: prompt {told}"


def accuracies(asked: Asked, api: str, scorer: Scorer, backend: Any) -> Iterator[Accuracy]:
    """Ask all questions with each retriever, free and constrained."""
    for retriever, k in (("none", 1), ("bm25", 1), ("bm25", 3), ("oracle", 1)):
        for constrained in (False, True):
            how = {"api": api, "retriever": retriever, "k": k, "constrained": constrained}
            runs = call_api.run_batch(rows(asked, how), backend=backend)
            verdicts = [
                scorer.judge(run.value.text if run.error is None else None, reference)
                for run, (_, reference) in zip(runs, asked, strict=True)
            ]
            yield Accuracy(retriever, k, constrained, tally(verdicts))


def sharings(asked: Asked, api: str, backend: rf.LocalBackend) -> Iterator[Sharing]:
    """Read all prompts in both orders, with one document and with three."""
    for retriever, k in (("bm25", 1), ("bm25", 3), ("oracle", 1)):
        for order in ORDERS:
            backend.clear_cache()
            how = {"api": api, "retriever": retriever, "k": k, "order": order, "max_tokens": 1}
            usage = [run.usage for run in call_api.run_batch(rows(asked, how), backend=backend)]
            prompt, cached = sum(each.prompt_tokens for each in usage), sum(each.cached_tokens for each in usage)
            yield Sharing(retriever, k, order, prompt, cached)


def rows(asked: Asked, how: dict[str, Any]) -> list[dict[str, Any]]:
    """The program's arguments for every question."""
    return [
        how | {"question": question.text, "question_id": question.question_id, "reference": reference}
        for question, reference in asked
    ]


def parts(score: Score) -> dict[str, float]:
    """The shares that a bar is made of; they sum to 1."""
    wrong = score.replies - score.correct - score.hallucinated - score.no_call
    counts = (score.same, score.correct - score.same, wrong, score.hallucinated, score.no_call)
    return {name: count / score.replies for name, count in zip(COLOURS, counts, strict=True)}


def draw(measured: Sequence[Accuracy], path: Path) -> None:
    """Write a plot (SVG): a bar for each way of asking. Raises UsageError where matplotlib is missing."""
    with plot(path, 7.6, 3.6) as axes:
        labels = [each.name for each in measured]
        left = [0.0] * len(measured)
        for name, colour in COLOURS.items():
            widths = [parts(each.score)[name] for each in measured]
            axes.barh(labels, widths, left=left, color=colour, label=name)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.set(xlim=(0, 1), xlabel="share of replies")
        axes.invert_yaxis()
        axes.figure.legend(loc="outside upper center", ncols=len(COLOURS), frameon=False)


def as_json(measured: Sequence[Accuracy], shared: Sequence[Sharing]) -> dict[str, Any]:
    """All figures, for a file."""
    return {"accuracy": [asdict(each) for each in measured], "sharing": [asdict(each) for each in shared]}
