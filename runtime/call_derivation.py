"""Reads off a chat template how it writes calls of tools, from what it makes of calls of unmistakable parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .call_format import CallFormat, Slot, WrittenCall, call_record
from .chat_check import sample_text
from .chat_template import Refused, Template
from .roles import ASSISTANT, USER

_SLOTS: tuple[Slot, ...] = ("name", "arguments", "id")
_MAX_SHOWN = 3


def sample_call(index: int) -> WrittenCall:
    """A call such as no template contains, with an id as templates demand it: nine letters and digits."""
    return WrittenCall(f"Zqf{index}qZ", {f"Zqa{index}qZ": index, f"Zqb{index}qZ": [True, "Zq"]}, f"Zq{index:05}qZ")


def derive_calls(template: Template) -> CallFormat | None:
    """The format of calls; None where the template leaves them out, or writes them as no such format can say."""
    for as_text in (False, True):
        try:
            return _Derivation(template, as_text).format()
        except Refused:
            continue
    return None


@dataclass(frozen=True, slots=True)
class _Derivation:
    """as_text: whether the template is given arguments as JSON text."""

    template: Template
    as_text: bool

    def format(self) -> CallFormat:
        """Raises Refused."""
        found = self._single(self._body([sample_call(0)]))
        with suppress(Refused):  # it writes one call at a time
            found = self._with_separator(found)
        with suppress(Refused):  # or none behind text
            found = self._with_lead(found)
        return found

    def _single(self, body: str) -> CallFormat:
        """The format of one call, from its text. Raises Refused."""
        call = sample_call(0)
        for is_compact in (False, True):
            arguments = json.dumps(call.arguments, separators=(",", ":") if is_compact else None)
            texts = {"name": call.name, "arguments": arguments, "id": str(call.id)}
            slots = sorted((slot for slot in _SLOTS if body.count(texts[slot]) == 1), key=lambda s: body.find(texts[s]))
            if {"name", "arguments"} <= set(slots) and not any(body.count(texts[slot]) > 1 for slot in _SLOTS):
                parts, rest = list[str](), body
                for slot in slots:
                    before, _, rest = rest.partition(texts[slot])
                    parts.append(before)
                made = CallFormat(parts[0], tuple(slots), tuple(parts[1:]), None, rest, is_compact=is_compact)
                if parts[0].strip() and all(parts[1:]):
                    return made
        raise Refused("calls are not written as a name and JSON")

    def _with_separator(self, single: CallFormat) -> CallFormat:
        """The format with what stands between calls. Raises Refused where it writes several otherwise, or not."""
        calls = [sample_call(index) for index in range(_MAX_SHOWN)]
        two = self._body(calls[:2])
        first, second = (single.write([call])[len(single.opening) :] for call in calls[:2])
        start = single.opening + (first.removesuffix(single.closing) if single.closing else first)
        if not two.startswith(start) or not two.endswith(second):
            raise Refused("several calls are written otherwise than one")
        separator = two[len(start) : len(two) - len(second)]
        made = CallFormat(
            single.opening, single.slots, single.between, separator, single.closing, is_compact=single.is_compact
        )
        if not separator or any(self._body(calls[:count]) != made.write(calls[:count]) for count in (1, 2, 3)):
            raise Refused("several calls are written otherwise than one")
        return made

    def _with_lead(self, found: CallFormat) -> CallFormat:
        """The format with what stands between a message's text and its calls. Raises Refused where it has no text."""
        body = self._body([sample_call(0)], content=sample_text(2))
        text, _, rest = body.partition(sample_text(2))
        call = found.write([sample_call(0)])
        if text or not rest.endswith(call):
            raise Refused("a message of calls has no text")
        return CallFormat(
            found.opening, found.slots, found.between, found.separator, found.closing,
            rest.removesuffix(call), found.is_compact,
        )  # fmt: skip

    def _body(self, calls: Sequence[WrittenCall], content: str = "") -> str:
        """What stands for the message's text where it holds calls. Raises Refused."""
        user = {"role": USER, "content": sample_text(0)}
        plain = self._render([user, {"role": ASSISTANT, "content": sample_text(1)}])
        before, found, after = plain.partition(sample_text(1))
        records = [call_record(call, as_text=self.as_text) for call in calls]
        shown = self._render([user, {"role": ASSISTANT, "content": content, "tool_calls": records}])
        start = next((text for text in (before, before.rstrip(" ")) if shown.startswith(text)), None)
        if not found or start is None or not shown.endswith(after):
            raise Refused("a message of calls is not written as others are")
        return shown[len(start) : len(shown) - len(after)]

    def _render(self, records: list[dict[str, Any]]) -> str:
        return self.template.render_records(records, prompt=False)
