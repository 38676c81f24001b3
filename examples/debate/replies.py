"""What the moderator and the judge reply: the text of a Python dict, whose keys their prompt shows."""

import ast
import json
import re
from dataclasses import dataclass
from typing import Any

from ramify.ir.errors import OutputError

__all__ = ["FIELDS", "Reply", "ReplyForm", "dict_in"]

# What a moderator's dict says, in this order, whatever its keys are called.
FIELDS = ("preference", "side", "reason", "answer")
_CHOICES = {"preference": ["Yes", "No"], "side": ["Affirmative", "Negative", ""]}


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply's fields; one that its form does not have is empty."""

    preference: str = ""
    side: str = ""
    reason: str = ""
    answer: str = ""


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """The keys of a reply, in order, and which of FIELDS each of them is."""

    fields: tuple[str, ...]
    keys: tuple[str, ...]

    def read(self, text: str, who: str, *, is_json: bool = False) -> Reply:
        """A reply's fields; is_json: a schema held it to JSON.

        Raises OutputError, which names `who` said it, for a text that is not of this form.
        """
        value = _json(text) if is_json else _literal(text)
        if not isinstance(value, dict):
            raise OutputError(
                f"{who} did not reply with a Python dict: {text!r:.400}",
                text=text,
                help="a larger model may; a schema makes any model do it (schema=True, --schema)",
            )
        if missing := [key for key in self.keys if key not in value]:
            raise OutputError(f"the reply of {who} has no {missing[0]!r}: {text!r:.400}", text=text)
        texts = ("" if value[key] is None else str(value[key]) for key in self.keys)
        return Reply(**dict(zip(self.fields, texts, strict=True)))

    def schema(self) -> str:
        """A JSON schema of such replies."""
        properties: dict[str, Any] = {}
        for field, key in zip(self.fields, self.keys, strict=True):
            properties[key] = {"enum": _CHOICES[field]} if field in _CHOICES else {"type": "string"}
        shape = {"type": "object", "properties": properties, "required": list(properties)}
        return json.dumps(shape | {"additionalProperties": False})


def dict_in(prompt: str) -> dict[str, Any]:
    """The last dict that a prompt shows; empty if it shows none."""
    for shown in reversed(re.findall(r"\{[^{}]*\}", prompt)):
        value = _literal(shown)
        if isinstance(value, dict):
            return value
    return {}


def _json(text: str) -> Any:
    """The value that a text writes as JSON; None if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _literal(text: str) -> Any:
    """The value that a text writes as a Python literal; None if it is none. Nothing is executed."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
