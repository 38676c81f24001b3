"""Questions of the embedded model's own world, none of which it was trained on."""

import json
from typing import Any

from ramify.backends.tiny.tasks import draw_task

from .data import Accepted, Question

__all__ = ["OWN", "own_questions"]

OWN = "own"
_BFCL_TYPES = {"object": "dict", "number": "float"}


def own_questions(draws: int) -> list[Question]:
    """The first exchange of so many held-out draws of the task `tool-call`, as questions of BFCL."""
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
