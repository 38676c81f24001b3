"""What a model's answers are worth: each judged by BFCL's checker, and looked at for what constraints rule out."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from ramify.ir.errors import UsageError

from .calls import Call, read_calls
from .checker import RIGHT, Verdict, check
from .data import Question
from .functions import json_schema, mistakes, typed
from .multi_turn import Task, TurnVerdict, judge

__all__ = ["Outcome", "Summary", "assess", "outcomes", "summary", "table", "turn_outcomes"]


class Outcome(msgspec.Struct, frozen=True):
    """An answer judged. is_readable: whether it holds calls, or an empty list. invented: names that no function has.
    ill_typed: what is wrong with arguments by the functions' documents alone.
    """

    id: str
    category: str
    verdict: Verdict
    is_readable: bool
    invented: list[str]
    ill_typed: list[str]


class Summary(msgspec.Struct, frozen=True):
    """Counts over the answers of one category. too_long: rows that did not fit the model; failed: other failed rows."""

    category: str
    answers: int
    correct: int
    readable: int
    invented: int
    ill_typed: int
    too_long: int = 0
    failed: int = 0
    kinds: dict[str, int] = {}


def assess(question: Question, value: Mapping[str, Any], *, underscores: bool = False) -> Outcome:
    """Judge what the program `call` has given. A text without calls is right where no call is wanted, as in BFCL."""
    try:
        calls = _calls(value["calls"]) if "calls" in value else read_calls(value["text"])
    except ValueError as error:
        no_call = question.category == "relevance"
        return Outcome(question.id, question.category, RIGHT if no_call else _unreadable(error), False, [], [])
    by_name = {_name(function, underscores): function for function in question.functions}
    invented = [call.name for call in calls if call.name not in by_name]
    known = [
        Call(call.name, typed(call.arguments, by_name[call.name]["parameters"]), call.positional)
        if call.name in by_name
        else call
        for call in calls
    ]
    ill_typed = [
        wrong
        for call in known
        if call.name in by_name
        for wrong in mistakes(call.arguments, json_schema(by_name[call.name]["parameters"], is_enforced=True))
    ]
    verdict = check(question, known, underscores=underscores)
    return Outcome(question.id, question.category, verdict, True, invented, ill_typed)


def _calls(given: list[dict[str, Any]]) -> list[Call]:
    return [Call(each["name"], each["arguments"]) for each in given]


def _unreadable(error: ValueError) -> Verdict:
    return Verdict("unreadable", str(error)[:200])


def _name(function: Mapping[str, Any], underscores: bool) -> str:
    name: str = function["name"]
    return name.replace(".", "_") if underscores else name


def outcomes(
    records: Iterable[Mapping[str, Any]], questions: Iterable[Question], *, underscores: bool = False
) -> list[Outcome]:
    """Judge the rows of an output that have a value. Raises UsageError for one of a question that is not there."""
    by_id = {question.id: question for question in questions}
    return [
        assess(_known(record["value"]["id"], by_id), record["value"], underscores=underscores)
        for record in records
        if record["error"] is None
    ]


def turn_outcomes(records: Iterable[Mapping[str, Any]], tasks: Iterable[Task]) -> list[TurnVerdict]:
    """Judge the rows of an output of the program `converse`. Raises UsageError as `outcomes` does."""
    by_id = {task.id: task for task in tasks}
    return [
        judge(_known(record["value"]["id"], by_id), [_calls(turn) for turn in record["value"]["turns"]])
        for record in records
        if record["error"] is None
    ]


def _known(id: str, by_id: dict[str, Any]) -> Any:
    if id not in by_id:
        raise UsageError(
            f"the data hold no question {id!r}", help="give the --data, and the categories, that were run over"
        )
    return by_id[id]


def summary(category: str, judged: list[Outcome], records: Iterable[Mapping[str, Any]] = ()) -> Summary:
    """The counts of one category. records: all rows of it, of which those that failed have no outcome."""
    errors = [record["error"]["type"] for record in records if record["error"] is not None]
    too_long = errors.count("ContextOverflow")
    kinds = Counter(outcome.verdict.kind for outcome in judged if outcome.verdict.kind is not None)
    return Summary(
        category,
        len(judged),
        sum(outcome.verdict.valid for outcome in judged),
        sum(outcome.is_readable for outcome in judged),
        sum(bool(outcome.invented) for outcome in judged),
        sum(bool(outcome.ill_typed) for outcome in judged),
        too_long,
        len(errors) - too_long,
        dict(kinds.most_common()),
    )


def table(summaries: Iterable[Summary]) -> str:
    """Summaries as lines of text: shares of the answers that there are."""
    lines = [f"{'':28} answers  correct  calls read  invented name  ill-typed  too long  failed"]
    for each in summaries:
        shares = [each.correct, each.readable, each.invented, each.ill_typed]
        told = [f"{share / each.answers:.3f}" if each.answers else "-" for share in shares]
        lines.append(
            f"{each.category:28} {each.answers:7}  {told[0]:>7}  {told[1]:>10}  {told[2]:>13}  {told[3]:>9}"
            f"  {each.too_long:8}  {each.failed:6}"
        )
    return "\n".join(lines)
