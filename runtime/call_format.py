"""How a chat template writes calls of tools in an assistant message, and calls read back from such text.

What differs between the families (Hermes and Qwen, Llama 3, Mistral) is only the text around a call's name, arguments
and id; so a format is these texts. `call_derivation.py` reads them off a template, `call_grammar.py` makes a grammar of
them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

Slot = Literal["name", "arguments", "id"]

RESULT_ID, RESULT_NAME = "Zq00000qZ", "Zqf_qZ"
"""What stands in a format's marks where a result has the id and the name of its call."""
_MARK = re.compile(r"<[^<>\s]{1,40}>|\[[A-Z_]+\]")
_DECODER = json.JSONDecoder()


class WrittenCall(NamedTuple):
    """A call as it stands in a text: arguments are what its JSON says."""

    name: str
    arguments: Any
    id: str | None = None


def call_record(call: WrittenCall, *, as_text: bool = False) -> dict[str, Any]:
    """A call as chat APIs have it in a message. as_text: with its arguments as JSON text."""
    arguments = json.dumps(call.arguments) if as_text else call.arguments
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


class CallFormat(msgspec.Struct, frozen=True):
    """The texts of one or more calls.

    opening: before the first call. slots: what is written of each, in this order; between: the texts between them.
    separator: between two calls; None where a message holds one at most. closing: behind the last. lead: between
    text of the message and its first call. is_compact: whether JSON is written without spaces. id_pattern: what ids
    look like; those of templates have nine letters and digits. has_words: whether a model's words may come before
    its calls. tokens: those special or added tokens of the model that stand in these texts, by name.
    """

    opening: str
    slots: tuple[Slot, ...]
    between: tuple[str, ...]
    separator: str | None
    closing: str
    lead: str = ""
    is_compact: bool = False
    id_pattern: str = "[a-zA-Z0-9]{9}"
    has_words: bool = False
    tokens: tuple[tuple[str, int], ...] = ()

    @property
    def json_separators(self) -> tuple[str, str]:
        """What stands between two items of JSON, and behind a key."""
        return (",", ":") if self.is_compact else (", ", ": ")

    @property
    def mark(self) -> str:
        """What tells calls from other text: the text that they begin with, as far as its first character is unique."""
        found = _MARK.match(self.opening)
        mark = found[0] if found is not None else self.opening
        again = mark.find(mark[0], 1)
        return mark if again < 0 else mark[:again]

    def marks(self) -> set[str]:
        """Everything in its texts that looks like a token of the model."""
        texts = (self.opening, *self.between, self.separator or "", self.closing)
        return {mark for text in texts for mark in _MARK.findall(text)}

    @property
    def has_ids(self) -> bool:
        """Whether each call has an id, which its result has to name."""
        return "id" in self.slots

    def write(self, calls: Sequence[WrittenCall]) -> str:
        """The text of calls. Raises ValueError for several where one at most is written."""
        if len(calls) > 1 and self.separator is None:
            raise ValueError("the chat template writes one call at a time")
        return self.opening + (self.separator or "").join(map(self._written, calls)) + self.closing

    def _written(self, call: WrittenCall) -> str:
        arguments = json.dumps(call.arguments, ensure_ascii=False, separators=self.json_separators)
        found = {"name": call.name, "arguments": arguments, "id": call.id or ""}
        parts = [found[self.slots[0]]]
        for text, slot in zip(self.between, self.slots[1:], strict=True):
            parts += [text, found[slot]]
        return "".join(parts)

    def read(self, text: str) -> list[WrittenCall] | None:
        """The calls in a message's text; None where it has none but is only words. Raises ValueError."""
        place = text.find(self.opening)
        if place < 0 and self.mark not in text:
            return None
        if place < 0 or not (self.has_words or text[:place] in ("", self.lead)):
            raise ValueError(f"it has {self.mark!r}, but does not begin with calls")
        found: list[WrittenCall] = []
        place += len(self.opening)
        while True:
            call, place = self._read(text, place)
            found.append(call)
            if text[place:] == self.closing:
                return found
            if self.separator is None or not text.startswith(self.separator, place):
                raise ValueError(f"behind call {len(found)} comes {text[place:][:40]!r}")
            place += len(self.separator)

    def words(self, text: str) -> str:
        """What stands before the calls in a message's text: all of it, where there are none."""
        return text.partition(self.opening)[0]

    def _read(self, text: str, place: int) -> tuple[WrittenCall, int]:
        """The call at a place in a text, and where it ends. Raises ValueError."""
        found: dict[str, Any] = {}
        ends = (*self.between, None)
        for slot, end in zip(self.slots, ends, strict=True):
            if slot == "arguments":
                found[slot], place = _DECODER.raw_decode(text, place)
            else:
                stop = self._end(text, place, end)
                found[slot], place = text[place:stop], stop
            if end is not None:
                if not text.startswith(end, place):
                    raise ValueError(f"behind the {slot} comes {text[place:][:40]!r}")
                place += len(end)
        return WrittenCall(**found), place

    def _end(self, text: str, place: int, end: str | None) -> int:
        """Where a name or an id ends: before the text that follows it. Raises ValueError."""
        texts = [end] if end is not None else [self.closing, *([self.separator] if self.separator else [])]
        found = [stop for each in texts if (stop := text.find(each, place)) >= 0]
        if not found:
            raise ValueError(f"{text[place:][:40]!r} has no end")
        return min(found)
