"""OpenAI's own interface for tools: the fields of a request that asks for calls, and how calls are shown in a prompt.

The server is told of the tools and whether a call has to be made; it answers with calls beside the text. In the prompt
they are JSON behind that text (SHOWN_CALLS), from which the messages of later requests have them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from ..runtime.call_format import CallFormat
from ..runtime.call_grammar import CallRequest
from ..runtime.constraint import Constraint
from ..runtime.tool_schema import Writable

CallSchema = Callable[[str], Any]  # from a tool's schema, as JSON, to what the server is told

SHOWN_CALLS = CallFormat(
    opening='[{"id":"',
    slots=("id", "name", "arguments"),
    between=('","name":"', '","arguments":'),
    separator='},{"id":"',
    closing="}]",
    is_compact=True,
    id_pattern=r'[^"\\]{1,200}',
    has_words=True,
)


def asking_for_calls(constraint: Constraint, call_schema: CallSchema | None = None) -> dict[str, Any]:
    """The fields for calls of a gen's tools. call_schema: see Flavour.

    A server cannot be told how many calls there are to be, beyond none, one or several. Raises Unsupported for a schema
    that strict mode does not take.
    """
    request = msgspec.json.decode(constraint.source, type=CallRequest)
    return {
        "tools": [_described(tool, call_schema) for tool in request.tools],
        "tool_choice": "required" if request.least else "auto",
        "parallel_tool_calls": request.most > 1,
    }


def declaring(tools: Iterable[Writable]) -> dict[str, Any]:
    """The fields that tell of tools of which none may be called now."""
    return {"tools": [tool.schema for tool in tools], "tool_choice": "none"}


def _described(tool: Mapping[str, Any], call_schema: CallSchema | None) -> dict[str, Any]:
    if call_schema is not None:
        parameters = call_schema(msgspec.json.encode(tool["parameters"]).decode())
        tool = {**tool, "parameters": parameters, "strict": True}
    return {"type": "function", "function": dict(tool)}
