"""Prompts that ask for clues, in the released file format of arXiv 2305.15053.

A folder has a `FIELD.prompt.txt` for each field, whose first line stands before the worked examples and whose second
stands after them, and `examples/FIELD_clue_examples.jsonl` with on each line a question and its clue (and, for `date`,
the day it was posted). Out comes each field's head: all of its prompt that does not depend on the query.
"""

import json
from pathlib import Path
from typing import Any

from ramify.ir.errors import UsageError

__all__ = ["FIELDS", "FOLDER", "asked", "heads"]

FOLDER = Path(__file__).parent / "prompts"
FIELDS = ("author", "cover", "date", "date_extract", "genre", "plot", "title")
STEMS = {field: field for field in FIELDS} | {"plot": "plot_extract"}
"""What a field's files are called."""
KEYS = {field: f"{field.split('_')[0]}_clue" for field in FIELDS}
"""What a clue is called in a worked example."""
MARKS = {field: f"{field.split('_')[0].capitalize()} Clue:" for field in FIELDS}
"""What stands before a clue in the prompt."""


def asked(name: str, query: str, posted: str) -> str:
    """A query up to its field's mark, after which the clue stands. posted: YYYY-MM-DD, which only `date` shows."""
    day = f" Question Posted Date: {posted}" if name == "date" else ""
    return f"Question: {query}{day} {MARKS[name]}"


def heads(folder: Path = FOLDER, shots: int | None = None) -> dict[str, str]:
    """Each field's prompt up to the query, with the first `shots` worked examples, or all.

    Raises UsageError for a folder that has not the format.
    """
    return {name: head(folder, name, shots) for name in FIELDS}


def head(folder: Path, name: str, shots: int | None) -> str:
    """One field's prompt up to the query."""
    before, after = instructions(folder / f"{STEMS[name].replace('_', '.')}.prompt.txt")
    path = folder / "examples" / f"{STEMS[name]}_clue_examples.jsonl"
    lines = [line for line in read(path).splitlines() if line.strip()][:shots]
    examples = [worked(name, path, number, line) for number, line in enumerate(lines, 1)]
    return f"{before}\n{''.join(examples)}\n{after}\n"


def instructions(path: Path) -> tuple[str, str]:
    """The two parts of an instruction."""
    lines = read(path).strip("\n").split("\n")
    if len(lines) != 2:
        raise UsageError(
            f"{path} has {len(lines)} line{'s' * (len(lines) != 1)}, not two",
            help="its first line stands before the worked examples, its second after them",
        )
    return lines[0], lines[1]


def worked(name: str, path: Path, number: int, line: str) -> str:
    """A worked example as the prompt shows it."""
    try:
        example: dict[str, Any] = json.loads(line)
        posted = example["question_posted_date"] if name == "date" else ""
        return f"{asked(name, example['question'], posted)} {example[KEYS[name]]}\n"
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"line {number} of {path} is no worked example: {error!r}",
            help=f'it must be an object with "question" and "{KEYS[name]}"'
            + (' and "question_posted_date"' if name == "date" else ""),
        ) from None


def read(path: Path) -> str:
    """A file's text. Raises UsageError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}",
            help="a folder of prompts has FIELD.prompt.txt and examples/FIELD_clue_examples.jsonl for each field "
            f"({', '.join(FIELDS)}; docs/tot.md)",
        ) from None
