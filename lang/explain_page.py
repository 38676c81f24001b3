"""An explanation as a page of HTML that needs nothing from elsewhere: table, prefix tree, IR and source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from .explain import Costs, Doubt, Explanation, Line
from .explain_graph import graphs
from .explain_listing import listings, shown_file
from .explain_table import (
    MEANINGS,
    byte_text,
    cells,
    difference,
    marks_of,
    outline_cells,
    same_text,
    stop_text,
    total_note,
    unseen_calls,
)
from .explain_tree import tree_drawing
from .pictures.page import document, figures

_COLUMNS = ("calls", "prompt", "cached", "prefill", "decode", "KV")


def page(found: Explanation) -> str:
    """The whole page."""
    rows = "1 row" if found.num_rows == 1 else f"{found.num_rows:,} rows"
    can_tell = found.impossible is None
    parts = (
        _figures(found) if can_tell else "",
        "".join(f'<div class="stop">{escape(text)}</div>' for text in _stop_texts(found)),
        _costs(found) if can_tell else "",
        _passes(found),
        tree_drawing(found) if can_tell else "",
        graphs(found),
        _unseen(found) + listings(found),
    )
    title, subtitle = f"ramify explain: {found.program}", f"{rows} on {found.model}" if found.model else rows
    return document(title, found.program, subtitle, "\n".join(parts), style="explain.css")


def _stop_texts(found: Explanation) -> Iterator[str]:
    if found.impossible is not None:
        yield str(found.impossible)
    yield from map(stop_text, found.stops)
    for number, error in found.failures:
        yield f"row {number} failed when it was run: {type(error).__name__}: {error}"


def _figures(found: Explanation) -> str:
    told = cells(found.total, found.doubt, found.bytes_per_token)
    path = ("" if found.doubt.is_sure else "~") + str(found.critical_path)
    shares = found.total.cached / found.total.prompt if found.total.prompt else 0.0
    numbers = [
        (told[0], "calls"),
        (path, "calls on the critical path"),
        (told[1], "prompt tokens"),
        (told[3], f"computed; {shares:.0%} is cached"),
        (told[4], "tokens generated"),
        (told[5], "of keys and values"),
    ]
    return figures(numbers)


def _table(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], num_text: int) -> str:
    """A table. rows: each with its class and cells, which are HTML. num_text: how many columns are text."""
    head = "".join(f"<th{_text_class(number, num_text)}>{escape(name)}</th>" for number, name in enumerate(columns))
    body = "".join(
        f'<tr class="{kind}">'
        + "".join(f"<td{_text_class(number, num_text)}>{cell}</td>" for number, cell in enumerate(told))
        + "</tr>"
        for kind, told in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _text_class(number: int, num_text: int) -> str:
    return ' class="text"' if number < num_text else ""


def _costs(found: Explanation) -> str:
    rows: list[tuple[str, list[str]]] = []
    for line in found.lines:
        rows.append(
            ("", [_place_link(line, shown_file(found)), escape(line.label), *_escaped(found, line.costs, line.doubt)])
        )
        if found.measured is not None:
            rows.append(_measured_row(found, line.measured or Costs()))
    rows.append(("total", ["total", total_note(found), *_escaped(found, found.total, found.doubt)]))
    if found.measured is not None:
        rows.append(_measured_row(found, found.measured))
    notes = "".join(f'<p class="dim">{escape(mark)} {escape(MEANINGS[mark])}</p>' for mark in marks_of(found))
    return "<h2>What each line costs</h2>" + _table(("line", "call", *_COLUMNS), rows, 2) + notes


def _measured_row(found: Explanation, costs: Costs) -> tuple[str, list[str]]:
    told = _escaped(found, costs, Doubt())
    return "measured", ["", "measured", *told[:-1], byte_text(costs.kv * found.bytes_per_token) if costs.kv else ""]


def _escaped(found: Explanation, costs: Costs, doubt: Doubt) -> list[str]:
    return [escape(cell) for cell in cells(costs, doubt, found.bytes_per_token)]


def _place_link(line: Line, shown: str | None) -> str:
    """The place of a line, which leads to the source if that file is shown."""
    if line.span is None or line.span.file != shown:
        return escape(line.place)
    return f'<a href="#source-{line.span.line}">{escape(line.place)}</a>'


def _passes(found: Explanation) -> str:
    if not found.passes:
        return ""
    title = "<h2>What the passes of the compiler save</h2>"
    same = f'<p class="dim">{escape(text)}</p>' if (text := same_text(found.passes)) else ""
    columns = ("without", "calls computed", "prefill", "decode", "critical path")
    rows = [
        ("", [escape(each.name), *map(difference, (each.calls, each.prefill, each.decode, each.critical_path))])
        for each in found.passes
        if each.saves
    ]
    return title + (_table(columns, rows, 1) if rows else "") + same


def _unseen(found: Explanation) -> str:
    calls = found.outline if found.impossible is not None else unseen_calls(found)
    if not calls:
        return ""
    title = "What the IR says by itself" if found.impossible is not None else "Not asked for in the prediction"
    rows = [("", [escape(cell) for cell in outline_cells(each)]) for each in calls]
    return f"<h2>{title}</h2>" + _table(("line", "call", "function", "inside", "max_tokens"), rows, 4)
