"""An explanation for a terminal, at most 100 columns wide, and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .dry import Certainty
from .explain import CERTAINTIES, Costs, Doubt, Explanation, Line, PassSaving, Stop
from .outline import Outlined

_WIDTH = 100
MARKS: dict[Certainty, str] = {"exact": "", "bound": "≤", "estimate": "~"}
MEANINGS = {
    "≤": "at most: generated text may be shorter than max_tokens, or begin as another one does",
    "~": "depends on what is generated; an estimate",
}
_NUMBERS = ("calls", "prompt", "cached", "prefill", "decode", "KV")
_MOST_ROWS = 8
_PLACE_WIDTH = 22
# Passes that change when something is computed and what is kept, not what is asked for.
_UNTOLD = {"lifetimes", "plan_prefixes", "speculate"}


def print_explanation(found: Explanation, file: IO[str] | None = None) -> None:
    """Write the table and what belongs to it; None is stdout."""
    out = sys.stdout if file is None else file
    width = min(_WIDTH, Console(file=out).width) if out.isatty() else _WIDTH
    console = Console(file=out, highlight=False, markup=False, width=width)
    for part in _parts(found):
        as_written = isinstance(part, Text) and part.no_wrap is True
        console.print(part, soft_wrap=as_written)


def table_text(found: Explanation) -> str:
    """The same as text without colours."""
    out = StringIO()
    print_explanation(found, out)
    return out.getvalue().rstrip("\n")


def _parts(found: Explanation) -> Iterator[Text | Table]:
    yield Text(_heading(found), style="bold")
    if found.impossible is not None:
        yield _as_written(str(found.impossible))
        yield Text("What the program's IR says by itself:")
        yield _outline_table(found.outline)
        return
    yield _costs_table(found)
    yield from (Text(f"{mark} {MEANINGS[mark]}", style="dim") for mark in marks_of(found))
    yield Text(_critical_path(found))
    yield from (_as_written(told, "yellow") for told in map(stop_text, found.stops))
    for number, error in found.failures:
        yield _as_written(f"row {number} failed when it was run: {type(error).__name__}: {error}", "red")
    if found.passes:
        if any(saving.saves for saving in found.passes):
            yield Text("Without a pass of the compiler it would be:", style="bold")
            yield _passes_table([saving for saving in found.passes if saving.saves])
        if text := same_text(found.passes):
            yield Text(text, style="dim")
    if unseen := unseen_calls(found):
        yield Text("Not asked for in the prediction:", style="bold")
        yield _outline_table(unseen)


def _as_written(text: str, style: str = "") -> Text:
    """Text whose lines are not broken: carets stand under what they mean."""
    return Text(text, style=style, no_wrap=True)


def _heading(found: Explanation) -> str:
    if found.impossible is not None and not found.num_rows:
        return found.program
    rows = "1 row" if found.num_rows == 1 else f"{found.num_rows:,} rows"
    return f"{found.program} over {rows}" + (f" on {found.model}" if found.model else "")


def _critical_path(found: Explanation) -> str:
    calls = "1 call" if found.critical_path == 1 else f"{found.critical_path} calls"
    mark = "" if found.doubt.is_sure else MARKS["estimate"]
    return f"critical path: {mark}{calls}, one after the other"


def marks_of(found: Explanation) -> list[str]:
    """The marks that the table has."""
    doubts = [line.doubt for line in found.lines]
    marks = {MARKS[doubt.prompt] for doubt in doubts}
    marks |= {MARKS["bound"] for doubt in doubts if not (doubt.has_exact_length and doubt.has_exact_kv)}
    marks |= {MARKS["estimate"] for doubt in doubts if not doubt.is_sure}
    return [mark for mark in MEANINGS if mark in marks]


def cells(costs: Costs, doubt: Doubt, bytes_per_token: int) -> list[str]:
    """The numbers of a line of the table, with their marks."""
    mark, decode_mark = MARKS[doubt.prompt], "" if doubt.has_exact_length else MARKS["bound"]
    call_mark = "" if doubt.is_sure else MARKS["estimate"]
    kv_mark = "" if doubt.has_exact_kv else MARKS["bound"]
    shared = f" ({costs.shared_calls:,} shared)" if costs.shared_calls else ""
    return [
        f"{call_mark}{costs.calls:,}{shared}",
        f"{mark}{costs.prompt:,}",
        f"{mark}{costs.cached:,}",
        f"{mark}{costs.prefill:,}",
        f"{call_mark or decode_mark}{costs.decode:,}",
        f"{mark or decode_mark or kv_mark}{byte_text(costs.kv * bytes_per_token)}",
    ]


def _measured_cells(costs: Costs, bytes_per_token: int) -> list[str]:
    told = cells(costs, Doubt(), bytes_per_token)
    return [*told[:-1], told[-1] if costs.kv else ""]


def byte_text(count: int) -> str:
    """A number of bytes, short enough to read."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def _costs_table(found: Explanation) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("line", no_wrap=True)
    table.add_column("call", no_wrap=True, overflow="ellipsis", max_width=16)
    for name in _NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    for line in found.lines:
        _add_line(table, found, line)
    told = cells(found.total, found.doubt, found.bytes_per_token)
    table.add_row("total", total_note(found), *told, style="bold")
    if found.measured is not None:
        table.add_row("", "measured", *_measured_cells(found.measured, found.bytes_per_token), style="cyan")
    return table


def total_note(found: Explanation) -> str:
    """What is to be known of the total where it is not all."""
    return "known part" if found.stops else ""


def _add_line(table: Table, found: Explanation, line: Line) -> None:
    told = cells(line.costs, line.doubt, found.bytes_per_token)
    table.add_row(short_place(line.place), line.label, *told)
    if found.measured is not None:
        measured = line.measured or Costs()
        table.add_row("", "measured", *_measured_cells(measured, found.bytes_per_token), style="cyan")


def short_place(place: str) -> str:
    """A file and line without the beginning of a long file name."""
    return place if len(place) <= _PLACE_WIDTH else "…" + place[1 - _PLACE_WIDTH :]


def _passes_table(passes: Sequence[PassSaving]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("without")
    for name in ("calls computed", "prefill", "decode", "critical path"):
        table.add_column(name, justify="right")
    for saving in passes:
        numbers = (saving.calls, saving.prefill, saving.decode, saving.critical_path)
        table.add_row(saving.name, *(difference(number) for number in numbers))
    return table


def same_text(passes: Sequence[PassSaving]) -> str:
    """Which passes save no tokens and no calls here, and which none ever do; nothing where all save something."""
    names = [saving.name for saving in passes if not saving.saves and saving.name not in _UNTOLD]
    untold = [saving.name for saving in passes if not saving.saves and saving.name in _UNTOLD]
    told = [f"the same without {', '.join(names)}"] if names else []
    told += [f"not predicted, for they save time or short memory: {', '.join(untold)}"] if untold else []
    return "; ".join(told)


def difference(number: int) -> str:
    """A difference with its sign."""
    return f"{number:+,}" if number else "same"


def stop_text(stop: Stop) -> str:
    """Which rows go no further, where and why."""
    rows = ", ".join(map(str, stop.rows[:_MOST_ROWS])) + (", ..." if len(stop.rows) > _MOST_ROWS else "")
    what = f"row {rows}" if len(stop.rows) == 1 else f"rows {rows}"
    where = "" if stop.is_certain else ", with placeholders for generated text"
    kind = type(stop.error).__name__
    unknown = "what is asked for behind this is unknown, and in no figure"
    return f"the prediction for {what} ends early{where}; {unknown}:\n{kind}: {stop.error}{_place_note(stop.error)}"


def _place_note(error: BaseException) -> str:
    notes = getattr(error, "__notes__", ())
    return f" ({notes[0]})" if notes else ""


def unseen_calls(found: Explanation) -> list[Outlined]:
    """Calls of the source that no row has come to in the prediction, and what runs as Python if that ended it."""
    seen = {(line.span.file, line.span.line) for line in found.lines if line.span is not None}
    return [
        each
        for each in found.outline
        if each.span is not None
        and (each.span.file, each.span.line) not in seen
        and (each.kind != "python" or found.stops)
    ]


def _outline_table(calls: Sequence[Outlined]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("line", "call", "function", "inside"):
        table.add_column(name)
    table.add_column("max_tokens", justify="right")
    for each in calls:
        table.add_row(*outline_cells(each))
    return table


def outline_cells(each: Outlined) -> list[str]:
    """Place, call, function, what it stands in, and the most tokens of a call that was not come to."""
    place = "" if each.span is None else f"{Path(each.span.file).name}:{each.span.line}"
    limit = "" if each.max_tokens is None else f"{each.max_tokens:,}"
    return [place, _call_text(each), each.function, " ".join(each.around), limit]


def _call_text(each: Outlined) -> str:
    if each.kind == "python":
        return "(runs as Python)"
    return f"{each.kind} {each.name!r}" if each.name else each.kind


def as_dict(found: Explanation) -> dict[str, Any]:
    """All numbers."""
    if found.impossible is not None:
        return {
            "program": found.program,
            "rows": found.num_rows,
            "impossible": str(found.impossible),
            "outline": [_outlined_dict(each) for each in found.outline],
        }
    return {
        "program": found.program,
        "model": found.model,
        "rows": found.num_rows,
        "lines": [_line_dict(found, line) for line in found.lines],
        "total": _costs_dict(found, found.total),
        **_doubt_dict(found.doubt),
        "critical_path": found.critical_path,
        "stops": [_stop_dict(stop) for stop in found.stops],
        "passes": None if found.passes is None else [_saving_dict(each) for each in found.passes],
        "not_asked_for": [_outlined_dict(each) for each in unseen_calls(found)],
        "measured": None if found.measured is None else _costs_dict(found, found.measured),
        "failures": [{"row": number, "error": str(error)} for number, error in found.failures],
    }


def _line_dict(found: Explanation, line: Line) -> dict[str, Any]:
    return {
        "file": None if line.span is None else line.span.file,
        "line": None if line.span is None else line.span.line,
        "kind": line.kind,
        "name": line.name,
        **_doubt_dict(line.doubt),
        **_costs_dict(found, line.costs),
        "measured": None if line.measured is None else _costs_dict(found, line.measured),
    }


def _doubt_dict(doubt: Doubt) -> dict[str, Any]:
    kv_at_most: Certainty = "exact" if doubt.has_exact_length and doubt.has_exact_kv else "bound"
    return {
        "calls_are": "exact" if doubt.is_sure else "estimate",
        "prompts_are": doubt.prompt,
        "decode_is": "estimate" if not doubt.is_sure else "exact" if doubt.has_exact_length else "bound",
        "kv_is": max(doubt.prompt, kv_at_most, key=CERTAINTIES.index),
    }


def _costs_dict(found: Explanation, costs: Costs) -> dict[str, int]:
    return {
        "calls": costs.calls,
        "shared_calls": costs.shared_calls,
        "prompt_tokens": costs.prompt,
        "cached_tokens": costs.cached,
        "prefill_tokens": costs.prefill,
        "decode_tokens": costs.decode,
        "kv_bytes": costs.kv * found.bytes_per_token,
    }


def _stop_dict(stop: Stop) -> dict[str, Any]:
    return {"rows": list(stop.rows), "error": str(stop.error), "certain": stop.is_certain}


def _saving_dict(each: PassSaving) -> dict[str, Any]:
    return {name: getattr(each, name) for name in each.__slots__}


def _outlined_dict(each: Outlined) -> dict[str, Any]:
    return {
        "file": None if each.span is None else each.span.file,
        "line": None if each.span is None else each.span.line,
        "kind": each.kind,
        "name": each.name,
        "inside": list(each.around),
        "max_tokens": each.max_tokens,
    }
