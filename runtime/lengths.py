"""How long the number, the text and the list are that a JSON text ends with: what a model may go on with for ever.

Grammars have bounds of their own (schema_lowering.bounded) where a single schema speaks of a value. These hold for all.
"""

from __future__ import annotations

import re

from .schema_lowering import MAX_ITEMS, MAX_TEXT

# Before the point of a number, or behind it: more than a float can tell apart.
MAX_DIGITS = 24
_QUOTE, _ESCAPE, _COMMA, _ZERO, _NINE = b'"\\,09'
_OPENING, _CLOSING = b"[{", b"]}"
_TEXTS = re.compile(r'"m(?:ax|in)Length":\s*([0-9]+)')
_LISTS = re.compile(r'"m(?:ax|in)(?:Items|Properties)":\s*([0-9]+)')


class JsonLengths:
    """Follows a JSON text byte by byte.

    max_text and max_members: from where on a text (a name too) and a list or object should end where they can.
    """

    __slots__ = ("_is_escaped", "_is_text", "_max_members", "_max_text", "_members", "_num_digits", "_text_len")

    def __init__(self, max_text: int, max_members: int) -> None:
        self._max_text = max_text
        self._max_members = max_members
        self._num_digits = 0
        self._text_len = 0
        self._members: tuple[int, ...] = ()
        self._is_text = False
        self._is_escaped = False

    @classmethod
    def of_schema(cls, schema: str) -> JsonLengths:
        """With the bounds that hold where a schema has none, or its own if they are larger."""
        text = max(map(int, _TEXTS.findall(schema)), default=0)
        members = max(map(int, _LISTS.findall(schema)), default=0)
        return cls(max(MAX_TEXT, text), max(MAX_ITEMS, members))

    def take(self, more: bytes) -> None:
        """Go on with more of the text."""
        for byte in more:
            if self._is_escaped:
                self._is_escaped = False
            elif byte == _QUOTE:
                self._is_text = not self._is_text
                self._num_digits = self._text_len = 0
            elif self._is_text:
                self._is_escaped = byte == _ESCAPE
                self._text_len += byte & 0xC0 != 0x80
            else:
                self._num_digits = self._num_digits + 1 if _ZERO <= byte <= _NINE else 0
                self._take_sign(byte)

    def _take_sign(self, byte: int) -> None:
        if byte in _OPENING:
            self._members = (*self._members, 1)
        elif byte in _CLOSING:
            self._members = self._members[:-1]
        elif byte == _COMMA and self._members:
            self._members = (*self._members[:-1], self._members[-1] + 1)

    @property
    def is_number_long(self) -> bool:
        """Whether the number should end if it can."""
        return self._num_digits >= MAX_DIGITS

    @property
    def is_text_long(self) -> bool:
        """Whether the text should end if it can."""
        return self._is_text and self._text_len >= self._max_text

    @property
    def is_list_long(self) -> bool:
        """Whether no member should follow the last one of a list or object, if it can do without."""
        return bool(self._members) and self._members[-1] >= self._max_members
