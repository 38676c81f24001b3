"""Where in the user's source something comes from.

Columns count characters, not the UTF-8 bytes that `ast` reports; `from_node` converts. Source lines are read
through `linecache`, so functions typed into a REPL or a notebook have their lines too.
"""

from __future__ import annotations

import ast
import linecache
import unicodedata

import msgspec


class Span(msgspec.Struct, frozen=True):
    """A range of source: `line` and `end_line` count from 1, columns from 0, the end is exclusive."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    @classmethod
    def from_node(cls, node: ast.AST, file: str, first_line: int = 1) -> Span:
        """The span of an `ast` node whose tree was parsed from text that starts at `first_line` of `file`."""
        shift = first_line - 1
        line, end_line = node.lineno + shift, (node.end_lineno or node.lineno) + shift  # type: ignore[attr-defined]
        start = _characters(file, line, node.col_offset)  # type: ignore[attr-defined]
        end = _characters(file, end_line, node.end_col_offset or node.col_offset)  # type: ignore[attr-defined]
        return cls(file, line, start, end_line, end)

    def merge(self, other: Span) -> Span:
        """The smallest span that covers both (of one file)."""
        first = min((self.line, self.column), (other.line, other.column))
        last = max((self.end_line, self.end_column), (other.end_line, other.end_column))
        return Span(self.file, *first, *last)

    def source_line(self) -> str:
        """The first line of the span as the user wrote it, or an empty string when it is not to be had."""
        return linecache.getline(self.file, self.line).rstrip("\n")

    def excerpt(self) -> list[str]:
        """The user's line and a line of carets under the span; empty when the source is gone."""
        text = self.source_line()
        if not text:
            return []
        return underline(text, self.column, self.end_column if self.end_line == self.line else len(text))

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def underline(text: str, start: int, end: int) -> list[str]:
    """The line and a line of carets under its characters `start` to `end` (exclusive), both indented."""
    # Tabs are kept in the padding so that the carets line up however wide a tab is shown.
    padding = "".join("\t" if c == "\t" else " " * _width(c) for c in text[:start])
    width = max(1, sum(_width(c) for c in text[start:end]))
    return [f"    {text}", f"    {padding}{'^' * width}"]


def _characters(file: str, line: int, byte_offset: int) -> int:
    text = linecache.getline(file, line)
    return len(text.encode()[:byte_offset].decode(errors="ignore")) if text else byte_offset


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
