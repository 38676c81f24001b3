"""A prompt as the messages of a chat request, or the reason why no chat request says the same.

A chat endpoint writes one assistant message after whole messages. Whatever a prompt holds beyond that would be lost or
moved by sending it, so it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..ir.errors import Unsupported
from ..runtime.call_format import call_record
from ..runtime.expression import Gen
from ..runtime.generation import Generation
from ..runtime.media import Media, add_media, add_text
from ..runtime.prompt import Message, Prompt
from ..runtime.tool_schema import CallSchema

_COMPLETION = "use a model with text completions, OpenAI(..., is_chat_model=False), or a backend that runs the model"


@dataclass(frozen=True, slots=True)
class Conversation:
    """The messages of a request. continued: the last is an assistant message that the answer is to continue."""

    messages: list[dict[str, Any]]
    continued: bool


def conversation(prompt: Prompt) -> Conversation:
    """The messages before a generation. Raises Unsupported for what they cannot express; all values have arrived."""
    if not prompt.open or prompt.message is None or prompt.message.role != "assistant":
        raise _misplaced(prompt)
    messages = _messages(prompt)
    if "tool_calls" in messages[-1]:
        raise Unsupported(
            "a chat request cannot continue an assistant message that holds calls of tools",
            help="end the message behind the calls, and append their results: rf.tool_message(result)",
        )
    if messages[-1]["content"]:
        return Conversation(messages, continued=True)
    if not messages[:-1]:
        raise Unsupported("a chat request needs a message before the assistant's", help="append rf.user(...) first")
    return Conversation(messages[:-1], continued=False)


def _misplaced(prompt: Prompt) -> Unsupported:
    if prompt.open and prompt.message is not None:
        place = f"inside a message of {prompt.message.role}"
    else:
        place = "outside of the messages"
    return Unsupported(
        f"a chat model writes the assistant's messages only, and this generation stands {place}",
        help=f"write rf.assistant(rf.gen(...)); or {_COMPLETION}",
    )


def _messages(prompt: Prompt) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for node in prompt.since(None):
        if node.kind == "role":
            if node.open:
                messages.append(_begun(node.value))
        elif node.kind == "gen" and node.value.is_of_calls:
            _add_calls(messages[-1], node.value)
        elif node.kind in ("text", "gen", "select"):
            if text := _text(node):
                _check_inside(node, text)
                add_text(messages[-1], text)
        elif isinstance(node.value, Media):
            _check_inside(node, f"({node.kind})")
            add_media(messages[-1], node.value)
    return messages


def _begun(message: Message) -> dict[str, Any]:
    """A message without text so far; a result names its call."""
    begun: dict[str, Any] = {"role": message.role, "content": ""}
    if message.call is not None and message.call[1] is not None:
        begun["tool_call_id"] = message.call[1]
    return begun


def _add_calls(message: dict[str, Any], generation: Generation) -> None:
    """Add what a model has answered that could call tools: words, calls, or both."""
    assert isinstance(generation.expression, Gen) and isinstance(generation.expression.schema, CallSchema)
    assert generation.done is not None
    schema, text = generation.expression.schema, generation.done.text
    assert schema.form is not None
    if words := schema.form.words(text):
        add_text(message, words)
    if calls := schema.written(text):
        message["content"] = message["content"] or None
        message["tool_calls"] = [call_record(call, as_text=True) for call in calls]


def _text(node: Prompt) -> str:
    value = node.value if node.kind == "text" else node.value.done.text
    return value if isinstance(value, str) else str(value.result())


def _check_inside(node: Prompt, text: str) -> None:
    if not node.open:
        shown = repr(text if len(text) <= 60 else text[:57] + "...")
        raise Unsupported(
            f"a chat request consists of messages, and this text stands outside of them: {shown}",
            help=f"put it into rf.system(...), rf.user(...) or rf.assistant(...); or {_COMPLETION}",
        )
