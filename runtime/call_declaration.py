"""The marks of a conversation in which tools are declared: its template's own declarations, in its first messages.

Where they stand is the template's affair: in the system message (Hermes, Qwen), before the first user message's text
(Llama 3), before the user message (Mistral). So the marks of the first messages are read off the template anew, with
the tools. A prompt only grows: what a template would move behind later messages stays where it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from .chat import ChatFormat, Opening
from .chat_check import sample_text
from .chat_template import Refused
from .roles import SYSTEM, USER, Pair


def declaring(chat: ChatFormat, tools: Sequence[Mapping[str, Any]]) -> ChatFormat:
    """The format with tools declared, as chat APIs describe them; itself where its template says nothing of tools."""
    key = declaration_key(tools)
    found = chat.declared.get(key)
    if found is None:
        found = chat.declared[key] = _declaring(chat, tools) or chat
    return found


def declaration_key(tools: Sequence[Mapping[str, Any]]) -> str:
    """What tells these tools from others among `ChatFormat.declared`."""
    return json.dumps(tools)


def _declaring(chat: ChatFormat, tools: Sequence[Mapping[str, Any]]) -> ChatFormat | None:
    if USER not in chat.closings:
        return None
    found = dict(chat.openings)
    closings = dict(chat.closings)
    alone = _gaps(chat, tools, (USER,))
    if alone is None or not alone[1].startswith(closings[USER]):
        return None
    alone[0] = alone[0].removeprefix(_left_out(chat))
    _open(found, (None, USER), alone[0])
    both = _gaps(chat, tools, (SYSTEM, USER)) if (SYSTEM, USER) in found else None
    if both is None:
        for pair in [pair for pair in found if SYSTEM in pair]:
            del found[pair]
    else:
        _open(found, (None, SYSTEM), both[0].removeprefix(_left_out(chat)))
        user = found[SYSTEM, USER].written
        if both[1].startswith(closings[SYSTEM]):
            _open(found, (SYSTEM, USER), both[1].removeprefix(closings[SYSTEM]))
        elif both[1].endswith(user):
            closings[SYSTEM] = both[1].removesuffix(user)
        else:
            return None
    return replace(chat, openings=MappingProxyType(found), closings=MappingProxyType(closings))


def _open(openings: dict[Pair, Opening], pair: Pair, text: str) -> None:
    openings[pair] = replace(openings[pair], written=text, generated=text, continued=text)


def _left_out(chat: ChatFormat) -> str:
    """What the template begins with and the format does not: a token that is put before the text elsewhere."""
    plain = _gaps(chat, (), (USER,))
    return plain[0].removesuffix(chat.openings[None, USER].written) if plain is not None else ""


def _gaps(chat: ChatFormat, tools: Sequence[Mapping[str, Any]], roles: tuple[str, ...]) -> list[str] | None:
    """What the template writes around the messages of a conversation; None where it does not name all tools."""
    if chat.check is None:
        return None
    records = [{"role": role, "content": sample_text(index)} for index, role in enumerate(roles)]
    try:
        rest = chat.check.template.render_records(records, prompt=False, tools=tools or None)
    except Refused:
        return None
    if not all(str(tool["function"]["name"]) in rest for tool in tools):
        return None
    gaps = list[str]()
    for index in range(len(roles)):
        before, found, rest = rest.partition(sample_text(index))
        if not found:
            return None
        gaps.append(before)
    return [*gaps, rest]
