"""What tells a request from others: its prompt's text, its parameters, and how two of them differ in words."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

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


@dataclass(frozen=True, slots=True)
class PromptText:
    """A prompt as text, without roles that stand elsewhere.

    after: the last generation or choice in it; behind: where its text ends. hash: of the text and of the tools that
    the conversation declares.
    """

    text: str
    after: Generation | None
    behind: int
    hash: str

    @classmethod
    def of(cls, prompt: Prompt) -> PromptText:
        """The text of a prompt all of which has arrived."""
        writing, parts = Writing(prompt.context.backend.chat), list[str]()
        length, behind, after = 0, 0, None
        for node in prompt.since(None):
            before, generated, writing = node.write(writing)
            shown = _shown_media(node.value) if isinstance(node.value, Media) else ""
            parts += [before, generated, shown]
            length += len(before) + len(generated) + len(shown)
            if node.kind in ("gen", "select"):
                behind, after = length, node.value
        text = "".join([*parts, writing.waiting()])
        tools = [] if prompt.message is None else [tool.schema for tool in prompt.message.tools]
        hashed = [text.encode(errors="surrogatepass"), repr(tools).encode() if tools else b""]
        return cls(text, after, behind, digest(hashed))


def _shown_media(media: Media) -> str:
    told = repr((media.address, media.mime_type, media.num_frames))
    return f"[{media.kind} {digest([told.encode(), media.data or b''])}]"


def request_of(generation: Generation) -> dict[str, Any]:
    """What a backend is asked beside the prompt, as data."""
    expression, params = generation.expression, generation.params
    if params is not None:
        found = {f.name: getattr(params, f.name) for f in fields(SamplingParams)}
        return {
            name: _as_data(name, value)
            for name, value in found.items()
            if name != "n" and (value is not None if name == "constraint" else value != getattr(_DEFAULTS, name))
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
