"""I1: every program of the corpus gives the same eagerly and compiled, with each pass switched off in turn."""

from __future__ import annotations

import copy
import re
import traceback
from typing import Any

import pytest
import ramify as rf
from ramify.backends import open_backend
from ramify.backends.scripted import ScriptedBackend
from ramify.runtime.backend import Backend

from .corpus import CASES, Case

NAMES = [f"{case.program.name}-{number}" for number, case in enumerate(CASES)]


def comparable(value: Any) -> Any:
    """A value with the states in it replaced by their texts, so that two runs can be compared."""
    if isinstance(value, rf.State):
        return ("state", value.text())
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(comparable(item) for item in value)
    return value


def outcome(case: Case, backend: Backend, *, eager: bool) -> dict[str, Any]:
    (run,) = case.program.run_batch([dict(case.arguments)], backend=backend, eager=eager)
    return {
        "value": comparable(run.value),
        "text": run.text,
        "vars": comparable(run.vars),
        "error": type(run.error),
        "message": getattr(run.error, "message", None) or str(run.error),
        "line": line_of(run.error) if run.error is not None else None,
    }


def line_of(error: BaseException) -> int | None:
    """The user's line that an error names: that of the generation, in the traceback, by its span, or in a note."""
    notes = "".join(getattr(error, "__notes__", ()))
    if found := re.findall(r"in the generation at .*corpus\.py:(\d+)", notes):
        return int(found[-1])
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename.endswith("corpus.py")]
    if lines:
        return lines[-1]
    if isinstance(error, rf.RamifyError) and error.span is not None:
        return error.span.line
    found = re.findall(r"corpus\.py:(\d+)", notes)
    return int(found[-1]) if found else None


def copied(case: Case) -> Case:
    """The case with arguments of its own (programs may change them)."""
    return Case(case.program, copy.deepcopy(case.arguments), case.raises)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_eager_equals_compiled_on_a_scripted_backend(case: Case) -> None:
    eager = outcome(copied(case), ScriptedBackend(), eager=True)
    compiled = outcome(copied(case), ScriptedBackend(), eager=False)
    assert compiled == eager
    if case.raises is None:
        assert eager["error"] is type(None), eager["message"]
    else:
        assert issubclass(eager["error"], case.raises), eager["message"]
        assert eager["line"] is not None


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_eager_equals_compiled_on_the_embedded_model(case: Case) -> None:
    backend = open_backend("tiny")
    assert outcome(copied(case), backend, eager=False) == outcome(copied(case), backend, eager=True)


def test_the_corpus_is_large_enough() -> None:
    assert len({case.program.name for case in CASES}) >= 40
