"""How long the number is that a JSON text ends with: what no schema bounds, and a model may go on with for ever."""

from __future__ import annotations

# Before the point of a number, or behind it: more than a float can tell apart.
MAX_DIGITS = 24
_QUOTE, _ESCAPE, _ZERO, _NINE = b'"\\09'


class DigitCount:
    """Follows a JSON text byte by byte. `count`: the digits in a row at its end, none inside a text."""

    __slots__ = ("_is_escaped", "_is_text", "count")

    def __init__(self) -> None:
        self.count = 0
        self._is_text = False
        self._is_escaped = False

    def take(self, more: bytes) -> None:
        """Go on with more of the text."""
        for byte in more:
            if self._is_escaped:
                self._is_escaped = False
            elif byte == _QUOTE:
                self._is_text = not self._is_text
                self.count = 0
            elif self._is_text:
                self._is_escaped = byte == _ESCAPE
            else:
                self.count = self.count + 1 if _ZERO <= byte <= _NINE else 0

    @property
    def is_enough(self) -> bool:
        """Whether the number should end if it can."""
        return self.count >= MAX_DIGITS
