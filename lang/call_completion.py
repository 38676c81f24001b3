"""Names of arguments for a call that is being typed: of a program's `run` its parameters, of any other its keywords."""

from __future__ import annotations

import builtins
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..runtime.expression import SAMPLING_NAMES
from .loading import program_of
from .options import RUN_OPTIONS
from .program import Program

_STRING_OR_COMMENT = re.compile(r"""('{3}|"{3})(?:\\.|[^\\])*?\1|('|")(?:\\.|[^\\\n])*?\2|\#[^\n]*""", re.DOTALL)
_CALLEE = re.compile(r"[^\W\d][\w.]*$")
_GIVEN = re.compile(r"\s*(\w+)\s*=(?!=)")


def argument_names(text: str, names: Mapping[str, Any]) -> list[str]:
    """What may follow at the end of a text, each as "name="; nothing unless an argument of a call begins there."""
    call = _open_call(text)
    if call is None:
        return []
    callee, given = call
    *before, word = given.split(",")
    if not re.fullmatch(r"\s*\w*", word):
        return []
    said = [match[1] for match in map(_GIVEN.match, before) if match]
    free = [*dict.fromkeys(keyword_names(callee, names))][len(before) - len(said) :]
    return [f"{name}=" for name in free if name not in said]


def keyword_names(callee: str, names: Mapping[str, Any]) -> Iterable[str]:
    """The keywords that a (dotted) name may be called with."""
    try:
        value = _value(callee, names)
        program = program_of(value) or program_of(getattr(value, "__self__", None))
        return _keywords(value) if program is None else _of_program(program, value)
    except Exception:  # no such name, no signature, or a property of the user's object raised
        return ()


def _open_call(text: str) -> tuple[str, str] | None:
    """The name that is called by the innermost bracket that is open at the end, and what stands in it by now, without
    what is in brackets or strings; None where that is no call, or the end is inside a string.
    """
    text = _STRING_OR_COMMENT.sub(" ", text)
    if "'" in text or '"' in text:
        return None
    inside, depth = "", 0
    for place in range(len(text) - 1, -1, -1):
        character = text[place]
        if character in ")]}":
            depth += 1
        elif character in "([{":
            depth -= 1
            if depth < 0:
                callee = _CALLEE.search(text[:place]) if character == "(" else None
                return None if callee is None else (callee.group(), inside)
        elif depth == 0:
            inside = character + inside
    return None


def _value(name: str, names: Mapping[str, Any]) -> Any:
    first, *attributes = name.split(".")
    value = names[first] if first in names else getattr(builtins, first)
    for attribute in attributes:
        value = getattr(value, attribute)
    return value


def _of_program(program: Program, value: Any) -> Iterable[str]:
    """The keywords of a program, or of a method of it."""
    method = "run" if program_of(value) is not None else value.__name__
    if method in ("run", "arun"):
        return [*_keywords_of(program.signature.parameters.values()), *RUN_OPTIONS]
    if method == "options":
        return [*sorted(SAMPLING_NAMES), *RUN_OPTIONS]
    return _keywords(getattr(Program, method))


def _keywords(value: Any) -> Iterable[str]:
    return [name for name in _keywords_of(inspect.signature(value).parameters.values()) if name != "self"]


def _keywords_of(parameters: Iterable[inspect.Parameter]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [parameter.name for parameter in parameters if parameter.kind in kinds]
