"""Prompt templates: JSON files that say how a question and its documents become a prompt, and what a reply looks like.

A file has these keys; braces stand for what is filled in:

    style    "chat", or "text" for raw text outside any chat
    system   the system turn of a chat (optional)
    fields   the fields of a record that a document shows; without it, all
    document how one document is written: {record} is its JSON
    prompt   the user's turn, or the whole text, by order: "documents-first", "question-first" (the paper's) and
             "no-documents"; {documents} is all of them, a line each
    reply    the form that a constrained reply is held to: {domain}, {api_call}, ... are values of the database
    stop     texts that end a reply (optional)
"""

import json
import re
import string
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
from ramify.ir.errors import UsageError

from .data import Record, load_database

__all__ = ["ORDERS", "Template", "load_template", "reply_pattern"]

ORDERS = ("documents-first", "question-first")
FOLDER = Path(__file__).parent / "prompts"
HOLE = re.compile(r"\{(\w+)\}")
# Rust's regular expressions read \< and \> as the edges of words.
ESCAPED = {ord(char): f"\\{char}" for char in string.punctuation if char not in "<>"}


class Template(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a template file holds."""

    style: Literal["chat", "text"]
    document: str
    prompt: dict[Literal["documents-first", "question-first", "no-documents"], str]
    reply: str
    system: str = ""
    fields: tuple[str, ...] | None = None
    stop: tuple[str, ...] = ()

    def ask(self, question: str, documents: Sequence[Record], order: str) -> str:
        """The user's turn, or the whole raw text. Raises UsageError for an order that the template has not."""
        order = order if documents else "no-documents"
        if order not in self.prompt:
            raise UsageError(f"the template has no order {order!r}", help=f"it has {', '.join(self.prompt)}")
        shown = "\n".join(filled(self.document, {"record": self.shown(record)}) for record in documents)
        return filled(self.prompt[order], {"question": question, "documents": shown})

    def shown(self, record: Record) -> str:
        """A record as a document shows it."""
        kept = record if self.fields is None else {name: record[name] for name in self.fields if name in record}
        return json.dumps(kept)


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with its holes filled in one pass, so that braces in a value stay as they are."""
    return HOLE.sub(lambda hole: values.get(hole[1], hole[0]), text)


@cache
def load_template(name: str) -> Template:
    """Load a template: a file, or the name of one of the example's own. Raises UsageError that says what is wrong."""
    own = {path.stem: path for path in sorted(FOLDER.glob("*.json"))}
    path = own.get(name, Path(name))
    try:
        return msgspec.json.decode(path.read_bytes(), type=Template)
    except OSError as error:
        raise UsageError(f"there is no template {name!r}", help=f"give a file, or one of {', '.join(own)}") from error
    except msgspec.MsgspecError as error:
        raise UsageError(
            f"{path} is no template: {error}", help="docs/gorilla.md says what a template holds"
        ) from error


@cache
def reply_pattern(template: str, api: str) -> str:
    """A regular expression for replies of the template's form that name nothing but what the database `api` holds."""
    form, records = load_template(template).reply, load_database(api)
    parts = HOLE.split(form)
    return "".join(alternatives(part, records) if odd % 2 else escaped(part) for odd, part in enumerate(parts))


def alternatives(field: str, records: Sequence[Mapping[str, Any]]) -> str:
    """A pattern for the values that a field has in a database."""
    values = sorted({str(record[field]) for record in records if field in record})
    if not values:
        raise UsageError(f"no record of the database has the field {field!r}, which the template's reply names")
    return f"(?:{'|'.join(map(escaped, values))})"


def escaped(text: str) -> str:
    """A pattern for the text itself."""
    return text.translate(ESCAPED)
