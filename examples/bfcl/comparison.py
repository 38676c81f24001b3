"""Questions answered by a model and judged, and the same questions with and without constraints."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from ramify.examples.command import run_rows
from ramify.lang.records import run_record

from .data import Question
from .evaluate import Summary, outcomes, summary
from .functions import shared_first
from .program import call

__all__ = ["Records", "answer", "compare", "ordered", "summaries"]

Records = Sequence[Mapping[str, Any]]


def ordered(several: Sequence[Sequence[Mapping[str, Any]]], given: argparse.Namespace) -> Sequence[Any]:
    """Lists of functions in the order that --order says."""
    return shared_first(several) if given.order == "shared" else several


def answer(questions: Sequence[Question], given: argparse.Namespace, **arguments: Any) -> Records:
    """Run the program `call` over questions, as the options of a command line say; arguments: of every row."""
    arguments = {**arguments, "max_tokens": given.max_tokens}
    rows = [
        {"question": each.text, "functions": functions, "id": each.id, **arguments}
        for each, functions in zip(questions, ordered([each.functions for each in questions], given), strict=True)
    ]
    return [run_record(run) for run in run_rows(call, rows, given)]


def summaries(records: Records, questions: Sequence[Question], *, underscores: bool = False) -> list[Summary]:
    """The counts of each category; a record for each question, in their order."""
    found = []
    for category in dict.fromkeys(question.category for question in questions):
        part = [record for record, question in zip(records, questions, strict=True) if question.category == category]
        found.append(summary(category, outcomes(part, questions, underscores=underscores), part))
    return found


def compare(questions: Sequence[Question], given: argparse.Namespace) -> dict[str, list[Summary]]:
    """Answer the questions twice: without constraints, and with them. An output has the way in its name."""
    found = {}
    for way, constrained in (("free", False), ("constrained", True)):
        out = given.out and given.out.with_name(f"{given.out.stem}.{way}{given.out.suffix}")
        options = argparse.Namespace(**{**vars(given), "out": out})
        found[way] = summaries(answer(questions, options, constrained=constrained), questions)
    return found
