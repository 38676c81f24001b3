"""The types of IR values: `prompt`, `text`, `obj`, `cell` and `list<T>`.

A `prompt` is an immutable prompt value, a `cell` a mutable place that holds one (the user's State), a `text` a str
that may still be on its way, an `obj` any host value. Every value can be used where an `obj` is expected.
"""

from __future__ import annotations

import msgspec


class Type(msgspec.Struct, frozen=True):
    """A type; `element` is set for lists only."""

    kind: str
    element: Type | None = None

    def __str__(self) -> str:
        return self.kind if self.element is None else f"{self.kind}<{self.element}>"

    def accepts(self, other: Type) -> bool:
        """Whether a value of type `other` may be used where this type is expected."""
        return self in (OBJ, other)


PROMPT = Type("prompt")
TEXT = Type("text")
OBJ = Type("obj")
CELL = Type("cell")
KINDS = ("prompt", "text", "obj", "cell", "list")
