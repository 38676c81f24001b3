"""Tools of a chat request: what the model may or must write, and what it has written as OpenAI's `tool_calls`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import msgspec

from ...ir.errors import RamifyError
from ...runtime.call_format import CallFormat
from ...runtime.constraint import Constraint
from ...runtime.output import longest_start
from ...runtime.prompt import Prompt
from ...runtime.tool_schema import MOST_CALLS, CallSchema, call_schema
from ..schema_tool import SchemaTool
from .errors import in_words, invalid
from .fields import Chatting, Function

# The text of rf.gen(tools=..., num_calls=...) for a model whose template has no form for calls.
_AS_JSON = CallFormat(
    opening='[{"name":"',
    slots=("name", "arguments"),
    between=('","arguments":',),
    separator='},{"name":"',
    closing="}]",
    is_compact=True,
)
_NO_PARAMETERS = {"type": "object", "properties": {}}


def declared_tools(fields: Chatting) -> list[SchemaTool]:
    """The tools that the model is told of. Raises ApiError for what is no tool."""
    return [_tool(each.function, f"tools[{index}]") for index, each in enumerate(fields.tools or ())]


def _tool(function: Function, place: str) -> SchemaTool:
    try:
        return SchemaTool(function.name, function.description or "", function.parameters or _NO_PARAMETERS)
    except (RamifyError, TypeError, AttributeError) as error:
        raise invalid(f"{place}: {in_words(error)}", place) from None


def form_of_calls(prompt: Prompt) -> CallFormat:
    """How calls are written in the assistant's message that is open: as the chat template does, else as a JSON list."""
    return prompt.call_form or _AS_JSON


@dataclass(frozen=True)
class Calling:
    """Calls that the model may write. schema: with the constraint for them, and how they are written."""

    schema: CallSchema
    form: CallFormat

    @property
    def constraint(self) -> Constraint:
        """What the text has to match."""
        return self.schema.constraint

    def read(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        """The words and the calls of a text; a text that is cut off, or no calls, is all words."""
        try:
            calls = self.schema.written(text)
        except ValueError:
            return text, []
        return (self.form.words(text), [_told(*call) for call in calls]) if calls else (text, [])

    def num_words(self, text: str) -> int:
        """How many characters of a text that still grows are words, whatever follows."""
        found = text.find(self.form.mark)
        return found if found >= 0 else len(text) - longest_start(text, [self.form.mark])


def _told(name: str, arguments: Any, id: str | None = None) -> dict[str, Any]:
    written = msgspec.json.encode(arguments).decode()
    return {"id": id or f"call_{token_hex(8)}", "type": "function", "function": {"name": name, "arguments": written}}


def calling(fields: Chatting, tools: Sequence[SchemaTool], prompt: Prompt) -> Calling | None:
    """What may be called in the answer; None if nothing. Raises ApiError."""
    choice = fields.tool_choice if fields.tool_choice is not None else "auto" if tools else "none"
    if choice != "none" and not tools:
        raise invalid("tool_choice needs tools", "tool_choice")
    most = MOST_CALLS if fields.parallel_tool_calls is not False else 1
    match choice:
        case "none":
            return None
        case "auto":
            return _calling(tools, (0, most), prompt)
        case "required":
            return _calling(tools, (1, most), prompt)
        case {"type": "function", "function": {"name": str() as name}}:
            found = [tool for tool in tools if tool.name == name]
            if not found:
                raise invalid(f"tool_choice names {name!r}, which is not among tools", "tool_choice")
            return _calling(found, (1, 1), prompt)
    raise invalid(
        'tool_choice is "none", "auto", "required" or {"type": "function", "function": {"name": ...}}', "tool_choice"
    )


def _calling(tools: Sequence[SchemaTool], bounds: tuple[int, int], prompt: Prompt) -> Calling:
    form = form_of_calls(prompt)
    try:
        schema = call_schema(tools, bounds).written_in(form, follows_text=prompt.follows_text)
        schema.constraint.check()
    except (RamifyError, TypeError, ValueError) as error:
        raise invalid(f"tools: {in_words(error)}", "tools") from None
    return Calling(schema, form)
