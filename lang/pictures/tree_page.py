"""Prompt trees as a page: a line for each text, which opens to all of it, with its tokens beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..explain_text import printable
from ..rendering import tokens_line
from ..run import Run
from .page import document, figures, legend
from .telling import beginning, bytes_each
from .tree_drawing import described, origins_in
from .tree_rows import Row, Rows, row_text, rows_of

_MOST_ROWS = 20_000
_HEAD = 110


def page(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """The page of some runs. labels: what each is called."""
    found = [rows_of(run) for run in runs]
    num_rows = sum(len(each.rows) for each in found)
    entries = dict(entry for each in found for entry in origins_in(each))
    many = len(runs) != 1
    trees = "".join(
        _tree(each, label if many else "", bytes_each(num_rows)) for each, label in zip(found, labels, strict=True)
    )
    note = "a click on a line shows all of its text; to the right its tokens, from the beginning of its prompt"
    body = f"{_figures(runs)}{legend(entries.items(), before=note)}{trees}"
    heading = f"{len(runs):,} runs" if many else labels[0]
    subtitle = tokens_line(runs[0].usage) if not many else f"{num_rows:,} lines"
    return document(f"ramify tree: {heading}", heading, subtitle, body, style="tree.css")


def _figures(runs: Sequence[Run]) -> str:
    usages = [run.usage for run in runs]
    prompt, cached = sum(usage.prompt_tokens for usage in usages), sum(usage.cached_tokens for usage in usages)
    return figures(
        [
            (f"{sum(usage.calls for usage in usages):,}", "requests"),
            (f"{prompt:,}", "prompt tokens"),
            (f"{cached / prompt:.0%}" if prompt else "0%", "of them cached"),
            (f"{prompt - cached:,}", "computed"),
            (f"{sum(usage.generated_tokens for usage in usages):,}", "generated"),
        ]
    )


def _tree(found: Rows, label: str, most: int) -> str:
    rows = found.rows[:_MOST_ROWS]
    left_out = len(found.rows) - len(rows)
    title = f"<h2>{escape(printable(label))}</h2>" if label else ""
    more = f'<p class="dim">{left_out:,} more lines are not shown.</p>' if left_out else ""
    inner = "".join(_row(row, found.length, most) for row in rows)
    return f'{title}<p class="dim">{described(found)}</p><div class="tree">{inner}</div>{more}'


def _row(row: Row, length: int, most: int) -> str:
    indent = f' style="--d:{row.depth}"' if row.depth else ""
    if row.label:
        told = f"<i> {escape(row.told)}</i>" if row.told else ""
        return f'<div class="head"{indent}><b>{escape(row.label)}</b>{told}</div>'
    before = " ".join(filter(None, [row.role and f"{row.role}:", row.name and f"{row.name} ="]))
    role = f"<i>{escape(printable(before))} </i>" if before else ""
    kind = "wrong" if row.is_failed else "made" if row.name else ""
    head = f"<span{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{escape(row_text(row, _HEAD))}</span>"
    told = f"<p>{escape(row.told)}</p>" if row.told else ""
    return (
        f"<details{indent}><summary>{role}{head}{_bar(row, length)}</summary>"
        f"<pre>{escape(printable(beginning(row.text, most)))}</pre>{told}</details>"
    )


def _bar(row: Row, length: int) -> str:
    shapes = "".join(
        f'<rect class="{segment.origin}" x="{segment.begin}" width="{segment.end - segment.begin}" height="1"/>'
        for segment in row.segments
    )
    bar = f'<svg viewBox="0 0 {max(length, 1)} 1" preserveAspectRatio="none">{shapes}</svg>' if shapes else "<s></s>"
    return f"{bar}<u>{row.ends_at:,}</u>" if row.ends_at is not None else bar
