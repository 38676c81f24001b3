"""How runs, compiled programs and explanations look in a notebook: small pieces of HTML that need nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from .explain_text import printable
from .rendering import reuse_line, seconds, usage_line, value_text
from .transcript import branch_label

if TYPE_CHECKING:
    from ..ir.core import Module
    from .explain import Explanation
    from .run import Record, Run

_MOST_CHARACTERS = 4000
_MOST_RECORDS = 100
# No colours of its own for text and ground: it is read in light and in dark notebooks.
_PRE = "margin:0;white-space:pre-wrap;text-align:left;background:none;color:inherit"
_LABEL = "font-weight:bold;vertical-align:top;text-align:left;padding-right:1em"


def run_html(run: Run) -> str:
    """What was said, what came of it, a table of its requests, and what it used."""
    parts = [(f"{message['role']}", str(message["content"])) for message in (run.messages if run.is_whole else [])]
    if not parts and run.text:
        parts.append(("text", run.text))
    parts += [(f"{name} =", repr(value)) for name, value in run.vars.items()]
    if run.value is not None:
        parts.append(("value", value_text(run.value)))
    if run.error is not None:
        parts.append((type(run.error).__name__, str(run.error)))
    rows = "".join(f'<tr><td style="{_LABEL}">{_text(label)}</td><td>{_pre(text)}</td></tr>' for label, text in parts)
    trace = _trace(run.trace) if run.is_whole and run.trace else ""
    reuse = _small(reuse_line(run.reuse)) if run.reuse is not None else ""
    return f"<div><table>{rows}</table>{trace}{_small(usage_line(run.usage))}{reuse}</div>"


def _trace(trace: Sequence[Record]) -> str:
    heads = ("request", "branch", "text", "prompt", "cached", "generated", "time", "line")
    rows = "".join(_row(_cells(record)) for record in trace[:_MOST_RECORDS])
    more = _small(f"and {len(trace) - _MOST_RECORDS:,} more") if len(trace) > _MOST_RECORDS else ""
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f"<details><summary>{len(trace):,} requests</summary><table><tr>{head}</tr>{rows}</table>{more}</details>"


def _cells(record: Record) -> list[str]:
    from ..runtime.toolcall import ToolRecord

    line = f"{Path(record.span.file).name}:{record.span.line}" if record.span else ""
    if isinstance(record, ToolRecord):
        return [record.name, "", "", "", "", "", seconds(record.ms), line]
    tokens = (record.prompt_tokens, record.cached_tokens, record.generated_tokens)
    numbers = [f"{number:,}" for number in tokens]
    text = record.text if record.error is None else f"failed: {type(record.error).__name__}"
    return [
        record.name or record.kind,
        branch_label(record.branch),
        text[:200],
        *numbers,
        seconds(record.wall_ms),
        line,
    ]


def _row(cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"


def module_html(module: Module) -> str:
    """The IR as text."""
    from ..ir.printer import print_module

    return _pre(print_module(module), most=None)


def explanation_html(found: Explanation) -> str:
    """The table; `html()` is the whole page."""
    from .explain_table import table_text

    return (
        f"{_pre(table_text(found), most=None)}{_small('.html() is a page with the prefix tree, the IR and the source')}"
    )


def _pre(text: str, most: int | None = _MOST_CHARACTERS) -> str:
    shown = text if most is None or len(text) <= most else f"{text[:most]} ... ({len(text):,} characters)"
    return f'<pre style="{_PRE}">{_text(shown)}</pre>'


def _small(text: str) -> str:
    return f'<div style="opacity:.7">{_text(text)}</div>'


def _text(text: str) -> str:
    return escape(printable(text))
