"""The IR and the source of an explanation as listings whose values and lines lead to one another."""

from __future__ import annotations

import linecache
import re
from collections import defaultdict
from html import escape
from pathlib import Path

from ..ir.core import Module
from ..ir.printer import print_module
from .explain import Costs, Explanation

_LOCATION = re.compile(r' loc\("((?:[^"\\]|\\.)*)":(\d+):\d+-(\d+):\d+\)')
_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|(%\w+)')
_FUNCTION = re.compile(r"^func @(\"[^\"]*\"|[\w.]+)")
_DEFINED = re.compile(r"^\s*((?:%\w+, )*%\w+) = ")
_ARGUMENTS = re.compile(r"[(,] ?(%\w+)(?: as \S+)?: ")
_AROUND = 1


def listings(found: Explanation) -> str:
    """Source and IR side by side."""
    file = shown_file(found)
    source = "" if file is None else _source(file, _places(found.module)[file], found)
    title = "" if file is None else f"<section><h2>{escape(Path(file).name)}</h2><pre>{source}</pre></section>"
    ir = _ir(print_module(found.module, spans=True), file)
    return f'<h2>The program</h2><div class="listings">{title}<section><h2>IR</h2>{ir}</section></div>'


def shown_file(found: Explanation) -> str | None:
    """The file whose lines are shown: the one that most of the program comes from."""
    places = _places(found.module)
    return max(places, key=lambda name: len(places[name]), default=None)


def _places(module: Module) -> dict[str, set[int]]:
    """The lines of each file that the IR comes from."""
    places: dict[str, set[int]] = defaultdict(set)
    for span in [op.span for op in module.walk()] + [function.span for function in module.functions.values()]:
        if span is not None:
            places[span.file].update((span.line, span.end_line))
    return places


def _source(file: str, lines: set[int], found: Explanation) -> str:
    last = min(max(lines) + _AROUND, len(linecache.getlines(file)))
    costs: defaultdict[int, Costs] = defaultdict(Costs)
    for line in found.lines:
        if line.span is not None and line.span.file == file:
            costs[line.span.line].add(line.costs)
    return "".join(_source_line(file, number, costs.get(number)) for number in range(max(1, min(lines) - 1), last + 1))


def _source_line(file: str, number: int, costs: Costs | None) -> str:
    text = linecache.getline(file, number).rstrip("\n")
    cost = ""
    if costs is not None:
        calls = "1 call" if costs.calls == 1 else f"{costs.calls:,} calls"
        cost = f'  <span class="cost"># {calls}, {costs.prefill:,} prefill</span>'
    return f'<span class="line" id="source-{number}"><span class="number">{number}</span>{escape(text)}{cost}\n</span>'


def _ir(ir: str, file: str | None) -> str:
    function, shown = "", []
    for text in ir.splitlines():
        if (found := _FUNCTION.match(text)) is not None:
            function = re.sub(r"\W", "-", found[1])
        is_host_code = text.lstrip().startswith("|")
        inner = escape(text) if is_host_code else _op(text, f"value-{function}-", file)
        shown.append(f'<span class="line">{inner}\n</span>')
    return f"<pre>{''.join(shown)}</pre>"


def _op(text: str, prefix: str, file: str | None) -> str:
    """A line of IR: values lead to where they are defined, and its end to the source."""
    location = _LOCATION.search(text)
    text = _LOCATION.sub("", text)
    defined = set(_ARGUMENTS.findall(text))
    if (found := _DEFINED.match(text)) is not None:
        defined.update(found[1].split(", "))
    parts, end = [], 0
    for match in _VALUE.finditer(text):
        parts += [escape(text[end : match.start()]), _value(match, prefix, defined)]
        end = match.end()
    link = f' <a href="#source-{location[2]}">:{location[2]}</a>' if location and location[1] == file else ""
    return "".join(parts) + escape(text[end:]) + link


def _value(match: re.Match[str], prefix: str, defined: set[str]) -> str:
    """A value: the first mention of one that the line defines is its place, any other leads there."""
    name = match[1]
    if name is None:  # a text
        return escape(match[0])
    place = prefix + name[1:]
    if name not in defined:
        return f'<a href="#{place}">{name}</a>'
    defined.discard(name)
    return f'<b id="{place}">{name}</b>'
