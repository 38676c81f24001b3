"""APIBench's files, and an invented hub that needs none: API databases, questions, references, responses.

    database    JSON lines: one record for each API (`domain`, `api_name`, `api_call`, ...)
    evaluation  JSON lines: one for each question, with `api_data`, the record of the API that answers it
    questions   JSON lines of `question_id` (from 1) and `text`; row n of the evaluation file belongs to question n
    responses   JSON lines of `question_id` and `text`, or what the `run` of this example writes

A path of "" stands for the invented hub: the APIs that the embedded model was trained to know, and others that it has
never seen (`ramify.backends.tiny.apis`).
"""

import ast
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from ramify.backends.tiny import apis
from ramify.ir.errors import UsageError
from ramify.lang.rows import read_objects

__all__ = [
    "Question",
    "Record",
    "Response",
    "document_in",
    "hub_of",
    "load_database",
    "load_questions",
    "load_references",
    "load_responses",
]

Record = dict[str, Any]
# With the known ones, 48.
NUM_NEW_APIS = 36
HUB_FILES = {"torchhub": "torchhub", "tensorflow": "tensorflowhub", "huggingface": "huggingface"}
INSTRUCTION = re.compile(r"### ?Instruction: *(.*?)(?:\n### ?Output|\Z)", re.DOTALL)
PAGE = re.compile(r"Document\(page_content=(.*), metadata=\{\}\)\]$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Question:
    """A question, numbered from 1."""

    question_id: int
    text: str


@dataclass(frozen=True, slots=True)
class Response:
    """A reply to a question; its text is None where the file has none."""

    question_id: int
    text: str | None


@cache
def load_database(api: str) -> tuple[Record, ...]:
    """The records of an API database. Raises UsageError for a file that is none."""
    if not api:
        return tuple(dict(record) for record in invented())
    records = tuple(read_objects(Path(api)))
    for number, record in enumerate(records, 1):
        if not {"api_call", "domain"} <= record.keys():
            raise UsageError(f"{api}, line {number}: a record of an API database has `api_call` and `domain`")
    return records


@cache
def invented() -> tuple[apis.Record, ...]:
    """The invented hub: held-out APIs after the known ones."""
    return apis.KNOWN + tuple(apis.draw_records(Random("held-out/apis"), NUM_NEW_APIS, apis.KNOWN))


def hub_of(api: str) -> str:
    """The hub whose rules a database goes by, by its file's name. Raises UsageError where that tells none."""
    if not api:
        return "huggingface"
    for start, hub in HUB_FILES.items():
        if Path(api).name.startswith(start):
            return hub
    raise UsageError(f"the name of {api} tells no hub", help=f"say it with --hub: {', '.join(HUB_FILES.values())}")


def load_questions(path: Path | None) -> list[Question]:
    """Questions of a questions or evaluation file; without a path, four for each invented API."""
    if path is None:
        asked = [template.format(task=record["functionality"]) for record in invented() for template in apis.QUESTIONS]
        return [Question(number, text) for number, text in enumerate(asked, 1)]
    return [question_in(row, number, path) for number, row in enumerate(read_objects(path), 1)]


def question_in(row: Record, number: int, path: Path) -> Question:
    """The question of one line."""
    if "text" in row or "question" in row:
        return Question(row.get("question_id", number), str(row.get("text", row.get("question"))))
    instruction = INSTRUCTION.search(str(row.get("code", "")))
    if instruction is None:
        raise UsageError(
            f"{path}, line {number}: there is no question",
            help="a line has `text`, or `question`, or APIBench's `code`",
        )
    return Question(number, instruction[1])


def load_references(path: Path | None) -> list[Record]:
    """The API that answers each question, from an evaluation file; without a path, those of the invented questions."""
    if path is None:
        return [dict(record) for record in invented() for _ in apis.QUESTIONS]
    references = []
    for number, row in enumerate(read_objects(path), 1):
        if "api_data" not in row:
            raise UsageError(f"{path}, line {number}: a line of an evaluation file has `api_data`")
        references.append(row["api_data"])
    return references


def load_responses(path: Path) -> list[Response]:
    """Replies of a responses file, or of this example's output."""
    return [response_in(row, path, number) for number, row in enumerate(read_objects(path), 1)]


def response_in(row: Record, path: Path, number: int) -> Response:
    """The reply of one line; a row of our own that failed has no text."""
    given = row if "question_id" in row else row.get("value")
    if given is None and row.get("error"):
        return Response(int(row["row"]) + 1, None)
    if not isinstance(given, dict) or "question_id" not in given:
        raise UsageError(f"{path}, line {number}: a response has `question_id` and `text`")
    return Response(given["question_id"], given.get("text"))


def document_in(text: str) -> Record | None:
    """The document that a released question's text ends with, as JSON or as a printed `Document`; None without one."""
    _question, found, document = text.partition("Use this API documentation for reference:")
    if not found:
        return None
    page = PAGE.search(document)
    if page:
        return dict(ast.literal_eval(ast.literal_eval(page[1])))
    # A bracket too many follows in the released files.
    return dict(json.JSONDecoder().raw_decode(document.lstrip())[0])
