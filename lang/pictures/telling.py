"""What pictures say of a bar of a timeline: its line, its text, its tokens."""

from __future__ import annotations

from pathlib import Path

from ...ir.span import Span
from ...runtime.generation import GenRecord
from ...runtime.toolcall import ToolRecord
from ..explain_text import printable
from ..timeline import Bar

# How many bytes the texts of a page take together, and how many one may take at least and at most.
_TEXT_BYTES, _LEAST_BYTES, _MOST_BYTES = 300_000, 80, 4000


def place_of(span: Span | None) -> str:
    """A line, as `file.py:12`; empty where it is not known."""
    return "" if span is None else f"{Path(span.file).name}:{span.line}"


def source_of(span: Span | None) -> str:
    """The source of a line, without the white space around it; empty where it cannot be read.

    A recording knows its files without their folders: another of that name may be another file.
    """
    is_known = span is not None and (Path(span.file).is_absolute() or span.file.startswith("<"))
    return span.source_line().strip() if span is not None and is_known else ""


def text_of(bar: Bar) -> str:
    """What came of it: a text, scores, a tool's arguments."""
    record = bar.record
    if isinstance(record, ToolRecord):
        return ", ".join(f"{name}={value!r}" for name, value in record.arguments.items())
    if record is None:
        return ""
    if record.scores and not record.text:  # a score, or a choice in a recording, which does not say what was chosen
        return ", ".join(f"{scored.text!r} {scored.total:.2f}" for scored in record.scores)
    return record.text


def tokens_of(record: GenRecord) -> str:
    """Its tokens, and why it ended."""
    share = f" ({record.cached_tokens / record.prompt_tokens:.0%})" if record.prompt_tokens else ""
    told = f"prompt {record.prompt_tokens:,} tokens, {record.cached_tokens:,} cached{share}"
    if record.kind == "gen":
        told += f"; generated {record.generated_tokens:,}, ended by {record.finish_reason}"
    return told


def error_of(bar: Bar) -> str:
    """How it failed; empty if it did not."""
    error = None if bar.record is None else bar.record.error
    return "" if error is None else f"{type(error).__name__}: {getattr(error, 'message', error)}"


def head_of(text: str, most: int) -> str:
    """The beginning of a text in one line, of at most so many characters."""
    line = printable(" ".join(text[: 4 * most + 80].split()))
    return line if len(line) <= most else f"{line[: max(most - 1, 0)]}…"


def bytes_each(count: int) -> int:
    """How much of each of so many texts a page holds, in bytes."""
    return min(max(_TEXT_BYTES // max(count, 1), _LEAST_BYTES), _MOST_BYTES)


def beginning(text: str, most: int) -> str:
    """The beginning of a text, of so many bytes at most."""
    encoded = text.encode("utf-8", errors="replace")
    whole = encoded[:most].decode("utf-8", errors="ignore")
    return whole if len(encoded) <= most else f"{whole}…"
