"""What tells a request from others: its prompt's text, its parameters, and how two of them differ in words."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, cast

from ...runtime.expression import Select
from ...runtime.generation import Generation
from ...runtime.media import Media
from ...runtime.prompt import Prompt
from ...runtime.request import SamplingParams
from ...runtime.writing import Writing
from .events import digest
from .values import described

_DEFAULTS = SamplingParams()
_SHOWN = 60
# Parameters that do not tell what a request is answered: `n` is one request each, and how a server is asked.
_OF_THE_WAY = ("n", "speculative_tokens")


@dataclass(frozen=True, slots=True)
class PromptText:
    """What tells a prompt from others, with the part of its text that is new.

    after: the last generation or choice in it. tail: the text behind that; all of it where there is none. hash: of all
    of the text, and of the tools that the conversation declares.
    """

    after: Generation | None
    tail: str
    hash: str


class PromptTexts:
    """The prompts of one run as text: what two of them begin with is gone through once."""

    def __init__(self) -> None:
        self._known: dict[Prompt, _Begin] = {}

    def of(self, prompt: Prompt) -> PromptText:
        """The text of a prompt all of which has arrived."""
        nodes, node = list[Prompt](), cast("Prompt | None", prompt)
        while node is not None and node not in self._known:
            nodes.append(node)
            node = node.parent
        begin = _Begin(Writing(prompt.context.backend.chat)) if node is None else self._known[node]
        writing, hashed, after, tail = begin.writing, begin.hashed.copy(), begin.after, [begin.tail]
        for node in reversed(nodes):
            text, writing = _written(node, writing)
            tail.append(text)
            hashed.update(_bytes(text))
            if node.kind in ("gen", "select"):
                after, tail = node.value, []
        self._known[prompt] = _Begin(writing, hashed.copy(), after, "".join(tail))
        tail.append(writing.waiting())
        hashed.update(_bytes(tail[-1]))
        if prompt.message is not None and prompt.message.tools:
            hashed.update(repr([tool.schema for tool in prompt.message.tools]).encode())
        return PromptText(after, "".join(tail), hashed.hexdigest())


@dataclass(frozen=True, slots=True)
class _Begin:
    """What is known of a prompt that others may begin with; its text before `after` has been hashed only."""

    writing: Writing
    hashed: Any = field(default_factory=partial(hashlib.blake2b, digest_size=16))
    after: Generation | None = None
    tail: str = ""


def whole_text(prompt: Prompt) -> str:
    """All of a prompt's text."""
    writing, parts = Writing(prompt.context.backend.chat), list[str]()
    for node in prompt.since(None):
        text, writing = _written(node, writing)
        parts.append(text)
    return "".join([*parts, writing.waiting()])


def _written(node: Prompt, writing: Writing) -> tuple[str, Writing]:
    """What a node adds to the text."""
    before, generated, writing = node.write(writing)
    return before + generated + (_shown_media(node.value) if isinstance(node.value, Media) else ""), writing


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _shown_media(media: Media) -> str:
    told = repr((media.address, media.mime_type, media.num_frames))
    return f"[{media.kind} {digest([told.encode(), media.data or b''])}]"


def request_of(generation: Generation) -> dict[str, Any]:
    """What a backend is asked beside the prompt, as data."""
    expression, params = generation.expression, generation.params
    if params is not None:
        found = {f.name: getattr(params, f.name) for f in fields(SamplingParams) if f.name not in _OF_THE_WAY}
        return {
            name: _as_data(name, value)
            for name, value in found.items()
            if (value is not None if name == "constraint" else value != getattr(_DEFAULTS, name))
        }
    if isinstance(expression, Select):
        method = getattr(expression.method, "name", None) or getattr(expression.method, "__qualname__", "a method")
        return {"choices": list(expression.choices), "choices_method": str(method)}
    return {"texts": list(expression.texts)}  # type: ignore[union-attr]


def _as_data(name: str, value: Any) -> Any:
    if name == "constraint":
        return {value.label: value.source, "has_space": value.has_space}
    if name == "processors":
        return [str(getattr(each, "__qualname__", type(each).__qualname__)) for each in value]
    return described(list(value) if isinstance(value, tuple) else value)


def request_difference(then: dict[str, Any], now: dict[str, Any]) -> str | None:
    """How a request differs from one that was recorded, in words; None where it does not."""
    for name in now | then:
        if then.get(name) != now.get(name):
            return f"its {name} is {_value(name, now)}, and was {_value(name, then)}"
    return None


def _value(name: str, request: dict[str, Any]) -> str:
    return short(request[name] if name in request else getattr(_DEFAULTS, name, None))


def text_difference(then: str, now: str) -> str:
    """Where two texts differ first, in words."""
    place = next((n for n, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), min(len(then), len(now)))
    start = max(0, place - _SHOWN // 3)
    if start:  # from the beginning of a word on
        start = max(start, then.find(" ", start, place) + 1)
    return f"its prompt has {_part(now, start)}, and had {_part(then, start)}"


def _part(text: str, start: int) -> str:
    part = text[start : start + _SHOWN]
    return f"{'...' if start else ''}{part!r}{'...' if start + _SHOWN < len(text) else ''}"


def short(value: Any) -> str:
    """A value in some words."""
    text = repr(value)
    return text if len(text) <= 2 * _SHOWN else f"{text[: 2 * _SHOWN - 3]}..."
