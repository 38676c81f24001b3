"""BFCL's files: questions with the functions they may call, and the answers that are accepted.

Both forms are read: the first release (one function or a list of them, a question's text, one object of accepted calls
whose repeated names are numbered) and the later ones (lists everywhere, questions as chat turns).
"""

import re
from pathlib import Path
from typing import Any

import msgspec
from ramify.ir.errors import UsageError
from ramify.lang.rows import read_objects

__all__ = ["CATEGORIES", "Accepted", "Question", "described", "load_questions", "read_question"]

CATEGORIES = ("simple", "multiple", "parallel", "parallel_multiple", "relevance")
_NAMES = {"simple": ("simple", "simple_python"), "relevance": ("relevance", "irrelevance")}


class Accepted(msgspec.Struct, frozen=True):
    """A call that is wanted: the function's name as the file has it, and the accepted values of each parameter.

    "" among the values says that the parameter may be left out.
    """

    name: str
    values: dict[str, Any]


class Question(msgspec.Struct, frozen=True):
    """One item. functions: as BFCL documents them. accepted: None where no call is right."""

    id: str
    category: str
    text: str
    functions: list[dict[str, Any]]
    accepted: list[Accepted] | None


def load_questions(folder: Path, category: str) -> list[Question]:
    """The questions of a category with their accepted answers; those of `relevance` want no call.

    Raises UsageError for a folder without that category, and for lines that are not of BFCL's form.
    """
    if category not in CATEGORIES:
        raise UsageError(f"there is no category {category!r}", help=f"the categories are {', '.join(CATEGORIES)}")
    file = _find(folder, "questions", category)
    if file is None:
        raise UsageError(
            f"{folder} has no questions of the category {category}",
            help=f"looked for questions/{category}[_function].jsonl and BFCL_v*_{category}.json",
        )
    questions = list(read_objects(file))
    if category == "relevance":
        return [read_question(row, category) for row in questions]
    answers = _find(folder, "possible_answer", category)
    accepted = {} if answers is None else {row["id"]: row["ground_truth"] for row in read_objects(answers)}
    for row in questions:
        if row.get("id") not in accepted:
            raise UsageError(
                f"{folder} has no accepted answer for {row.get('id')}",
                help="they are in possible_answer; to ask without judging: ramify run examples/bfcl --data "
                + str(file),
            )
    return [read_question(row, category, accepted[row["id"]]) for row in questions]


def _find(folder: Path, kind: str, category: str) -> Path | None:
    """The file of questions or of answers, whatever the release calls it."""
    names = "|".join(_NAMES.get(category, (category,)))
    wanted = re.compile(rf"(BFCL_v\d+_)?({names})(_function)?\.jsonl?")
    places = (folder / kind, folder) if kind == "questions" else (folder / kind,)
    files = (file for place in places if place.is_dir() for file in sorted(place.iterdir()))
    return next((file for file in files if wanted.fullmatch(file.name)), None)


def read_question(row: dict[str, Any], category: str = "", truth: Any = None) -> Question:
    """A question from a line of BFCL's file; truth: its accepted calls, as the file of answers has them.

    Raises UsageError for a line that is not of BFCL's form.
    """
    try:
        functions = row["function"] if isinstance(row["function"], list) else [row["function"]]
        return Question(row["id"], category, _text(row["question"]), functions, _accepted(truth))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise UsageError(f"{row.get('id', 'a row without id')} is no question of BFCL: {error!r}") from None


def _text(question: Any) -> str:
    """A question's text, from a text or from the first of its turns."""
    if isinstance(question, str):
        return question
    (turn,) = question
    return "\n".join(message["content"] for message in turn)


def _accepted(truth: Any) -> list[Accepted] | None:
    """The accepted calls. A parameter that stands among them (one does) belongs to the call before it."""
    if truth is None:
        return None
    found: list[Accepted] = []
    for call in truth if isinstance(truth, list) else [truth]:
        for name, values in call.items():
            if isinstance(values, dict):
                found.append(Accepted(name, values))
            else:
                found[-1] = Accepted(found[-1].name, {**found[-1].values, name: values})
    return found


_NUMBERED = re.compile(r"[ _]\d+$")


def described(accepted: Accepted, functions: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The function that an accepted call is of; None where there is none.

    The first release numbers calls of the same function (`f_1`, `f 2`), and where one function is all there is, its
    name is the one that counts.
    """
    by_name = {function["name"]: function for function in functions}
    if len(functions) == 1:
        return functions[0]
    return by_name.get(accepted.name) or by_name.get(_NUMBERED.sub("", accepted.name))
