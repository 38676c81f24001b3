"""The keyword arguments of SGLang's `run` and `run_batch`, told from the program's own and put in ramify's terms."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ...runtime.expression import ALIASES, SAMPLING_NAMES, sampling_terms

# SGLang samples unless told otherwise.
DEFAULTS: Mapping[str, Any] = {"temperature": 1.0}

_OPTIONS = ("backend", "eager", "timeout")
# Threads do nothing here: every run shares one event loop.
_WITHOUT_EFFECT = ("use_thread",)
RUN_NAMES = frozenset({*ALIASES, *_OPTIONS, *_WITHOUT_EFFECT, *SAMPLING_NAMES, "stream"})


class Settings(NamedTuple):
    """Keyword arguments sorted out: the program's, options of the run, and whether it is to be streamed."""

    arguments: dict[str, Any]
    options: dict[str, Any]
    stream: bool


def sort_out(given: Mapping[str, Any], parameters: Collection[str]) -> Settings:
    """Tell a run's settings from a program's arguments: a name that the program has as a parameter is the program's."""
    mine = {name: value for name, value in given.items() if name in RUN_NAMES and name not in parameters}
    arguments = {name: value for name, value in given.items() if name not in mine}
    stream = bool(mine.pop("stream", False))
    return Settings(arguments, options(mine), stream)


def options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of SGLang's as options of a program; what is None is left to its default."""
    known = {name: value for name, value in given.items() if value is not None and name not in _WITHOUT_EFFECT}
    return sampling_terms(known)
