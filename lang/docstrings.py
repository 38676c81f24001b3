"""Docstrings as tools need them: what the function does, and what each parameter is.

Understands the three usual styles, told apart by their marks: Google ("Args:" with an indented list), NumPy
("Parameters" underlined with dashes) and Sphinx (":param name: ..."). What stands before the first of these sections is
the description; other sections (returns, raises, examples) are no part of it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

_PARAMETERS = {"args", "arguments", "parameters", "params", "other parameters", "keyword args", "keyword arguments"}
_SECTIONS = _PARAMETERS | {
    "attributes", "example", "examples", "note", "notes", "raises", "references", "return", "returns", "see also",
    "todo", "warning", "warnings", "warns", "yield", "yields",
}  # fmt: skip
_PARAMETER_FIELDS = {"param", "parameter", "arg", "argument", "key", "keyword"}
_FIELD_KINDS = _PARAMETER_FIELDS | {"type", "return", "returns", "rtype", "raise", "raises"}
_GOOGLE_HEAD = re.compile(r"(?P<name>[A-Z][\w ]*):\s*$")
_GOOGLE_ITEM = re.compile(r"(?P<names>\*{0,2}\w+)\s*(?:\([^)]*\))?\s*:\s*(?P<text>.*)")
_NUMPY_ITEM = re.compile(r"(?P<names>\*{0,2}\w+(?:\s*,\s*\w+)*)\s*(?::.*)?$")
_FIELD = re.compile(r":(?P<kind>[\w ]+?)(?:\s+(?P<name>\*{0,2}\w+))?\s*:(?:\s+(?P<text>.*)|$)")


def parse_docstring(text: str | None) -> tuple[str, dict[str, str]]:
    """The description, and the text of each parameter that the docstring tells of; line ends become spaces."""
    lines = inspect.cleandoc(text or "").splitlines()
    start = next((index for index in range(len(lines)) if _begins_section(lines, index)), len(lines))
    parameters: dict[str, str] = {}
    index = start
    while index < len(lines):
        index = _read_part(lines, index, parameters)
    return "\n".join(lines[:start]).strip(), parameters


def _begins_section(lines: Sequence[str], index: int) -> bool:
    return _google_head(lines, index) is not None or _numpy_head(lines, index) is not None or _is_field(lines[index])


def _is_field(line: str) -> bool:
    """Whether a line is a Sphinx field, such as `:param x: ...` or `:returns: ...`."""
    found = _FIELD.match(line)
    return found is not None and found["kind"].split()[0] in _FIELD_KINDS


def _google_head(lines: Sequence[str], index: int) -> str | None:
    """The name of the Google section that begins here: a known word and a colon over an indented block."""
    found = _GOOGLE_HEAD.match(lines[index])
    if found is None or found["name"].lower() not in _SECTIONS:
        return None
    below = next((line for line in lines[index + 1 :] if line.strip()), "")
    return found["name"].lower() if below[:1].isspace() else None


def _numpy_head(lines: Sequence[str], index: int) -> str | None:
    """The name of the NumPy section that begins here: a known word underlined with dashes."""
    name = lines[index].strip().lower()
    under = lines[index + 1].strip() if index + 1 < len(lines) else ""
    return name if name in _SECTIONS and len(under) >= 3 and not under.strip("-") else None


def _read_part(lines: Sequence[str], start: int, parameters: dict[str, str]) -> int:
    """Read what begins at a line into `parameters`; gives the index of the line after it."""
    if (name := _google_head(lines, start)) is not None:
        end = _next_section(lines, start + 1)
        if name in _PARAMETERS:
            _read_items(lines[start + 1 : end], _GOOGLE_ITEM, parameters)
        return end
    if (name := _numpy_head(lines, start)) is not None:
        end = _next_section(lines, start + 2)
        if name in _PARAMETERS:
            _read_items(lines[start + 2 : end], _NUMPY_ITEM, parameters)
        return end
    if _is_field(lines[start]):
        end = next((i for i in range(start + 1, len(lines)) if not lines[i][:1].isspace()), len(lines))
        _read_field(lines[start:end], parameters)
        return end
    return start + 1


def _next_section(lines: Sequence[str], start: int) -> int:
    return next((index for index in range(start, len(lines)) if _begins_section(lines, index)), len(lines))


def _read_items(lines: Sequence[str], item: re.Pattern[str], parameters: dict[str, str]) -> None:
    """A list of parameters: a line at the list's own indentation begins one, deeper lines go on with it."""
    indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    own = min(indents, default=0)
    names: list[str] = []
    for line in lines:
        begins = line.strip() and len(line) - len(line.lstrip()) == own
        if begins:
            found = item.match(line.strip())
            names = [] if found is None else [name.strip().lstrip("*") for name in found["names"].split(",")]
            line = found.groupdict().get("text") or "" if found is not None else ""
        for name in names:
            parameters[name] = _joined((parameters.get(name, ""), line))


def _read_field(lines: Sequence[str], parameters: dict[str, str]) -> None:
    found = _FIELD.match(lines[0])
    assert found is not None
    if found["kind"].split()[0] in _PARAMETER_FIELDS and found["name"]:
        parameters[found["name"].lstrip("*")] = _joined((found["text"] or "", *lines[1:]))


def _joined(lines: Iterable[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())
