"""I1: every program of the corpus gives the same eagerly and compiled, with each pass switched off in turn."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ramify.backends import open_backend
from ramify.backends.scripted import ScriptedBackend
from ramify.runtime.backend import Backend

from . import comparing, corpus, corpus_async, corpus_flow, corpus_python, corpus_states
from .corpus import CASES, Case

NAMES = [f"{case.program.name}-{number}" for number, case in enumerate(CASES)]


def outcome(case: Case, backend: Backend, *, eager: bool) -> dict[str, Any]:
    (run,) = case.program.run_batch([dict(case.arguments)], backend=backend, eager=eager)
    found = comparing.outcome(run, _is_own)
    if not run.ok and not isinstance(backend, ScriptedBackend):
        found |= {"text": None, "vars": None}  # what had arrived when the program failed is a matter of time
    return found


def _is_own(file: str) -> bool:
    return file in {each.__file__ for each in (corpus, corpus_async, corpus_flow, corpus_python, corpus_states)}


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
