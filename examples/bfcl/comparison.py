"""The same questions with and without constraints, and the picture of what that changes."""

import argparse
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ramify.backends.tiny.tasks import draw_task
from ramify.examples.command import run_rows
from ramify.lang.records import run_record

from .data import Accepted, Question
from .evaluate import Summary, outcomes, summary
from .functions import shared_first
from .program import call

__all__ = ["OWN", "Records", "answer", "compare", "draw_picture", "ordered", "own_questions", "summaries"]

Records = Sequence[Mapping[str, Any]]
OWN = "own"
_BFCL_TYPES = {"object": "dict", "number": "float"}


def own_questions(draws: int) -> list[Question]:
    """Questions of the embedded model's own world, none of which it was trained on."""
    found = []
    for index in range(draws):
        declared, asked, answered = draw_task("tool-call", "held-out", index).messages[:3]
        functions = [json.loads(line)["function"] for line in declared.content.splitlines() if line.startswith("{")]
        for function in functions:
            function["parameters"] = _as_document(function["parameters"])
        accepted = [
            Accepted(each["name"], {name: [value] for name, value in each["arguments"].items()})
            for each in json.loads(answered.content)
        ]
        found.append(Question(f"{OWN}_{index}", OWN, asked.content, functions, accepted))
    return found


def _as_document(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema in BFCL's words."""
    found = {**schema, "type": _BFCL_TYPES.get(schema["type"], schema["type"])}
    if "properties" in schema:
        found["properties"] = {name: _as_document(part) for name, part in schema["properties"].items()}
    return found


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


_STYLE = (
    'text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #1d2530; } .dim { fill: #5d6877; } '
    ".free { fill: #c9a227; } .constrained { fill: #2f6fb3; } "
    "@media (prefers-color-scheme: dark) { text { fill: #e3e8ef; } .dim { fill: #98a4b3; } }"
)
_PANELS = (
    ("calls read", lambda each: each.readable),
    ("invented names", lambda each: each.invented),
    ("ill-typed arguments", lambda each: each.ill_typed),
    ("correct", lambda each: each.correct),
)
_LABEL, _PANEL, _BAR, _ROW, _TOP = 130, 150, 110, 34, 46


def draw_picture(file: Path, found: Mapping[str, list[Summary]]) -> None:
    """Draw the shares of both ways as bars, a row for each category and a column for each share."""
    ways = list(found)
    categories = [each.category for each in found[ways[0]]]
    width, height = _LABEL + _PANEL * len(_PANELS), _TOP + _ROW * len(categories) + 12
    parts = [
        f'<rect class="{way}" x="{8 + 90 * index}" y="6" width="11" height="11"/>'
        f'<text class="dim" x="{24 + 90 * index}" y="16">{way}</text>'
        for index, way in enumerate(ways)
    ]
    for column, (title, counted) in enumerate(_PANELS):
        left = _LABEL + _PANEL * column
        parts.append(f'<text x="{left}" y="36">{title}</text>')
        for row, way in ((row, way) for row in range(len(categories)) for way in ways):
            each = found[way][row]
            share = counted(each) / each.answers if each.answers else 0.0
            top = _TOP + _ROW * row + 13 * ways.index(way)
            parts.append(f'<rect class="{way}" x="{left}" y="{top}" width="{_BAR * share:.1f}" height="11"/>')
            parts.append(f'<text class="dim" x="{left + _BAR * share + 3:.1f}" y="{top + 10}">{share:.0%}</text>')
    for row, category in enumerate(categories):
        parts.append(f'<text x="8" y="{_TOP + _ROW * row + 17}">{escape(category)}</text>')
    about = "; ".join(f"{way}, {_told(each)}" for way in ways for each in found[way])
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-labelledby="title about"><title id="title">Calls with and without constraints</title>'
        f'<desc id="about">{escape(about)}</desc><style>{_STYLE}</style>{"".join(parts)}</svg>\n',
        encoding="utf-8",
    )


def _told(each: Summary) -> str:
    """The counts of a category in words."""
    return f"{each.category}: {', '.join(f'{title} {counted(each)} of {each.answers}' for title, counted in _PANELS)}"
