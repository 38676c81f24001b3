"""The messages of a chat request as a prompt, written as the model's own chat template writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ...ir.errors import RamifyError
from ...runtime.backend import Backend
from ...runtime.call_format import CallFormat, WrittenCall
from ...runtime.context import Context
from ...runtime.expression import Declared, RoleMark
from ...runtime.prompt import Prompt
from ...runtime.roles import ASSISTANT, SYSTEM, TOOL
from ...runtime.tool_schema import Writable
from .errors import ApiError, in_words, invalid
from .tool_calls import form_of_calls

_FIELDS = {"role", "content", "name", "tool_calls", "tool_call_id", "refusal"}
_ROLES = ("system", "developer", "user", "assistant", "tool")


def conversation(
    backend: Backend, messages: Sequence[Mapping[str, Any]], tools: Sequence[Writable], *, continues: bool
) -> Prompt:
    """The prompt up to where the assistant's answer begins.

    tools: those that the conversation's first message declares. continues: the last message is the assistant's, and
    the answer goes on with it. Raises ApiError that names the message which cannot be.
    """
    if not messages:
        raise invalid("messages is empty", "messages")
    prompt = Context(backend).root()
    writing = _Writing(backend, tuple(tools))
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        is_open = continues and index == len(messages) - 1
        if is_open and message.get("role") != ASSISTANT:
            raise invalid("continue_final_message needs a last message of the assistant", place)
        try:
            prompt = writing.add(prompt, message, place, is_open=is_open)
        except (RamifyError, TypeError, ValueError) as error:
            raise invalid(f"{place}: {in_words(error)}", place) from None
    if continues:
        return prompt
    try:
        return prompt.role(ASSISTANT, "begin", () if prompt.message is not None else tuple(tools))
    except RamifyError as error:
        raise invalid(in_words(error), "messages") from None


class _Writing:
    """Appends messages. It knows the calls that were made, whose results name them."""

    def __init__(self, backend: Backend, tools: tuple[Writable, ...]) -> None:
        self._backend = backend
        self._tools = tools
        self._called: dict[str, str] = {}

    def add(self, prompt: Prompt, message: Mapping[str, Any], place: str, *, is_open: bool) -> Prompt:
        """The prompt with one more message, which is_open leaves without an end."""
        role = self._role(message, place)
        declared = self._tools if prompt.message is None else ()
        prompt = prompt.role(role, "begin", declared, self._answered(message, place) if role == TOOL else None)
        prompt = self._add_content(prompt, message.get("content"), f"{place}.content")
        if message.get("tool_calls"):
            prompt = self._add_calls(prompt, message, f"{place}.tool_calls")
        if declared:
            prompt = prompt.append_value(Declared(declared))
        return prompt if is_open else prompt.append_value(RoleMark(role, "end"))

    def _role(self, message: Mapping[str, Any], place: str) -> str:
        if unknown := sorted(message.keys() - _FIELDS):
            raise ApiError(400, f"{place} has an unknown field {unknown[0]!r}", param=place, code="unknown_parameter")
        role = message.get("role")
        if role not in _ROLES:
            raise invalid(f"{place}.role is one of {', '.join(_ROLES)}, not {role!r}", f"{place}.role")
        if message.get("name") is not None and role != TOOL:
            raise invalid(f"{place}.name is not supported: chat templates have no place for it", f"{place}.name")
        return SYSTEM if role == "developer" and "developer" not in self._backend.chat.roles else role

    def _answered(self, message: Mapping[str, Any], place: str) -> tuple[str, str | None] | None:
        """The name and the id of the call that a tool's message has the result of."""
        id = message.get("tool_call_id")
        if id is None:
            return None
        name = message.get("name") or self._called.get(str(id))
        if name is None:
            raise invalid(f"{place} has the result of call {id!r}, which no message before it makes", place)
        return name, str(id)

    def _add_content(self, prompt: Prompt, content: Any, place: str) -> Prompt:
        if content is None or isinstance(content, str):
            return prompt.append_text(content) if content else prompt
        if not isinstance(content, list):
            raise invalid(f"{place} is a text or a list of parts, not {type(content).__name__}", place)
        for index, part in enumerate(content):
            match part:
                case {"type": "text", "text": str() as text}:
                    prompt = prompt.append_text(text)
                case _:
                    raise invalid(f"{place}[{index}] is no text, and this server takes nothing else", place)
        return prompt

    def _add_calls(self, prompt: Prompt, message: Mapping[str, Any], place: str) -> Prompt:
        try:
            calls = [_written(each) for each in message["tool_calls"]]
        except (KeyError, TypeError, AttributeError, msgspec.DecodeError) as error:
            raise invalid(f"{place} is no list of calls: {error}", place) from None
        self._called |= {call.id: call.name for call in calls if call.id is not None}
        form = form_of_calls(prompt)
        return prompt.append_text((form.lead if message.get("content") else "") + form.write(_with_ids(form, calls)))


def _written(call: Mapping[str, Any]) -> WrittenCall:
    function = call["function"]
    return WrittenCall(function["name"], msgspec.json.decode(function.get("arguments") or "{}"), call.get("id"))


def _with_ids(form: CallFormat, calls: list[WrittenCall]) -> list[WrittenCall]:
    return calls if form.has_ids else [call._replace(id=None) for call in calls]
