"""Texts as a page can hold them."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text without what XML cannot hold."""
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)
