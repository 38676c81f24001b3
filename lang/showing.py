"""A finished run for people: what was said, what came of it, and a line for each generation."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..runtime.toolcall import ToolRecord
from .failures import describe
from .live import printable
from .rendering import reuse_line, seconds, usage_line, value_text
from .run import Record, Run
from .transcript import branch_label

_UNBOUNDED = 100_000
_HEAD_CHARACTERS = 40


def print_run(run: Run, file: IO[str] | None = None) -> None:
    """Write messages (or the text), variables, value and error, each generation, and the usage; None is stdout."""
    out = sys.stdout if file is None else file
    console = Console(file=out, highlight=False, markup=False, width=None if out.isatty() else _UNBOUNDED)
    for label, text in _parts(run):
        console.print(Text(label, style="bold") + Text(printable(text)), soft_wrap=True)
    if run.is_whole and run.trace:
        console.print(_table(run.trace))
    for line in [usage_line(run.usage), *([reuse_line(run.reuse)] if run.reuse is not None else [])]:
        console.print(Text(line, style="dim"), soft_wrap=True)


def _parts(run: Run) -> Iterator[tuple[str, str]]:
    """What a run says, each part with its label."""
    messages = run.messages if run.is_whole else []
    for message in messages:
        yield f"[{message['role']}] ", message["content"]
    if run.text and not messages:
        yield "", run.text
    for name, value in run.vars.items():
        yield f"{name} = ", repr(value)
    if run.value is not None:
        yield "value: ", value_text(run.value)
    if run.error is not None:
        yield "", describe(run.error)


def _table(trace: Sequence[Record]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("gen", "branch", "text"):
        table.add_column(column, no_wrap=True)
    for column in ("prompt", "cached", "generated", "queue", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("finish", "line"):
        table.add_column(column, no_wrap=True)
    for record in trace:
        table.add_row(*map(Text, _cells(record)))
    return table


def _cells(record: Record) -> list[str]:
    """What is told of a generation, choice or score; a tool call has no tokens and takes no branch."""
    line = f"{Path(record.span.file).name}:{record.span.line}" if record.span else ""
    failed = "" if record.error is None else type(record.error).__name__
    if isinstance(record, ToolRecord):
        return [record.name, "", "", "", "", "", "", seconds(record.ms), failed or "tool", line]
    tokens = (record.prompt_tokens, record.cached_tokens, record.generated_tokens)
    return [
        record.name or record.kind,
        branch_label(record.branch),
        printable(_head(record.text)),
        *(f"{number:,}" for number in tokens),
        *(seconds(time) for time in (record.queue_ms, record.wall_ms)),
        failed or record.finish_reason,
        line,
    ]


def _head(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _HEAD_CHARACTERS else text[: _HEAD_CHARACTERS - 3] + "..."
