"""Anthropic's messages: requests from the messages of backends/messages.py, and answers as the records of wire.py.

A system prompt is a field of its own there, a tool's result is a part of a user's message, and what of a prompt its
servers are to keep for later requests is marked in it (`cache_control`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import msgspec

from ..ir.errors import Unsupported
from .remote import Trouble
from .wire import Answer, CachedTokens, Call, Choice, Function, Message, Usage

Block = dict[str, Any]
_SYSTEM = ("system", "developer")
_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}
# What is shorter than about 1,024 tokens is not kept; at most so many places can be marked.
LEAST_KEPT = 4096
_MOST_MARKS = 4


def prompt_fields(messages: Iterable[Mapping[str, Any]]) -> tuple[Block, list[int]]:
    """The fields `system` and `messages`, and of each given message the number of the one that it became part of (-1
    for the system prompt). Raises Unsupported for a system message that is not at the beginning.
    """
    system: list[Block] = []
    made: list[Block] = []
    places: list[int] = []
    for message in messages:
        if message["role"] in _SYSTEM:
            if made:
                raise Unsupported(
                    f"Anthropic's models take a message of {message['role']} at the beginning only",
                    help="write it as rf.user(...), or put it first",
                )
            system += _blocks(message)
            places.append(-1)
            continue
        role = "assistant" if message["role"] == "assistant" else "user"
        blocks = _blocks(message)
        if made and (made[-1]["role"] == role or not blocks):  # an empty message is none there
            made[-1]["content"] += blocks
        elif blocks:
            made.append({"role": role, "content": blocks})
        places.append(len(made) - 1)
    fields: Block = {"messages": made}
    return ({"system": system} if system else {}) | fields, places


def _blocks(message: Mapping[str, Any]) -> list[Block]:
    """The parts of one message."""
    if message["role"] == "tool":
        return [_result(message)]
    content = message["content"]
    if isinstance(content, str):
        blocks = [{"type": "text", "text": content}] if content else []
    else:
        blocks = [_part(part) for part in content or ()]
    return blocks + [_use(call) for call in message.get("tool_calls", ())]


def _result(message: Mapping[str, Any]) -> Block:
    if "tool_call_id" not in message:
        raise Unsupported(
            "Anthropic's models take a tool's message only as the answer to a call of their own interface for tools",
            help="append a result of rf.call_tools for calls of gen(tools=...), or write it as rf.user(result.content)",
        )
    return {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": message["content"]}


def _part(part: Mapping[str, Any]) -> Block:
    if part["type"] != "image_url":
        return dict(part)
    url = part["image_url"]["url"]
    if not url.startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    kind, _, data = url.removeprefix("data:").partition(";base64,")
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}


def _use(call: Mapping[str, Any]) -> Block:
    function = call["function"]
    return {
        "type": "tool_use",
        "id": call["id"],
        "name": function["name"],
        "input": msgspec.json.decode(function["arguments"]),
    }


def tool_fields(fields: Mapping[str, Any]) -> Block:
    """Tools as OpenAI's interface has them (native_tools.py), as this one has them."""
    if not fields:
        return {}
    tools = []
    for tool in fields["tools"]:
        function = tool.get("function", tool)
        described = {"name": function["name"], "input_schema": function["parameters"]}
        if function.get("description"):
            described["description"] = function["description"]
        tools.append(described)
    kind = {"required": "any", "auto": "auto", "none": "none"}[fields["tool_choice"]]
    choice: Block = {"type": kind}
    if kind != "none":
        choice["disable_parallel_tool_use"] = not fields["parallel_tool_calls"]
    return {"tools": tools, "tool_choice": choice}


def mark(fields: Block, ends: Iterable[int]) -> None:
    """Ask for prompts to be kept up to the ends of these messages (-1 for the system prompt), where they are long."""
    size = len(msgspec.json.encode([fields.get("tools"), fields.get("system")]))
    wanted, marked = set(ends), []
    if -1 in wanted and size >= LEAST_KEPT and fields.get("system"):
        marked.append(fields["system"][-1])
    for number, message in enumerate(fields["messages"]):
        size += len(msgspec.json.encode(message["content"]))
        if number in wanted and size >= LEAST_KEPT and message["content"]:
            marked.append(message["content"][-1])
    for block in marked[-_MOST_MARKS:]:
        block["cache_control"] = {"type": "ephemeral"}


class Used(msgspec.Struct):
    """The tokens of a request; a stream tells them in parts."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def with_new(self, new: Used) -> Used:
        """These, where the new ones do not say otherwise."""
        told = {name: value for name, value in msgspec.structs.asdict(new).items() if value is not None}
        return msgspec.structs.replace(self, **told)

    def usage(self) -> Usage:
        """As wire.py's record, where the prompt's tokens are all of them."""
        read, written = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        prompt = (self.input_tokens or 0) + read + written
        return Usage(prompt, self.output_tokens, CachedTokens(read), written)


class Part(msgspec.Struct):
    """A part of an answer, or of a stream's one: text, or a call of a tool."""

    type: str
    text: str = ""
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class Wrong(msgspec.Struct):
    type: str = ""
    message: str = ""


class Reply(msgspec.Struct):
    """A whole answer."""

    content: list[Part] = []
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Used = msgspec.field(default_factory=Used)
    error: Wrong | None = None

    def answer(self) -> Answer:
        """As wire.py's record. Raises Trouble for an error."""
        if self.error is not None:
            raise _trouble(self.error)
        text = "".join(part.text for part in self.content if part.type == "text")
        calls = [
            Call(number, part.id, Function(part.name, msgspec.json.encode(part.input or {}).decode()))
            for number, part in enumerate(part for part in self.content if part.type == "tool_use")
        ]
        choice = Choice(message=Message(text, tool_calls=calls or None), **_end(self))
        return Answer([choice], self.usage.usage())


class Delta(msgspec.Struct):
    """What an event of a stream adds."""

    type: str = ""
    text: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None


class Event(msgspec.Struct):
    """An event of a stream."""

    type: str
    index: int = 0
    message: Reply | None = None
    content_block: Part | None = None
    delta: Delta | None = None
    usage: Used | None = None
    error: Wrong | None = None


class Events:
    """A stream's events as pieces of an answer."""

    def __init__(self) -> None:
        self._used = Used()

    def answers(self, event: Event) -> Iterator[Answer]:
        """The piece that an event is, if it adds something. Raises Trouble for an error."""
        if event.error is not None:
            raise _trouble(event.error)
        told = event.message.usage if event.message is not None else event.usage
        if told is not None:
            self._used = self._used.with_new(told)
        usage = self._used.usage()
        block, delta = event.content_block, event.delta
        if block is not None and block.type == "tool_use":
            yield Answer([_calling(Call(event.index, block.id, Function(block.name)))], usage)
        elif block is not None and block.text:
            yield Answer([Choice(delta=Message(block.text))], usage)
        elif delta is not None and delta.partial_json:
            yield Answer([_calling(Call(event.index, None, Function(None, delta.partial_json)))], usage)
        elif delta is not None:
            yield Answer([Choice(delta=Message(delta.text), **_end(delta))], usage)


def _calling(call: Call) -> Choice:
    return Choice(delta=Message(tool_calls=[call]))


def _end(ended: Reply | Delta) -> dict[str, Any]:
    reason = ended.stop_reason
    return {"finish_reason": _REASONS.get(cast(str, reason), reason), "matched_stop": ended.stop_sequence}


# By the kind of an error: the HTTP status that it would have had.
_STATUSES = {"overloaded_error": 529, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504}


def _trouble(error: Wrong) -> Trouble:
    return Trouble.of_status(_STATUSES.get(error.type, 400), f"the server failed: {error.message or error.type}", {})
