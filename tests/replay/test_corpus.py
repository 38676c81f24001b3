"""Every program of the corpus, recorded and played: nothing is asked, and all of it is the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.lang.run import Run

from ..lang.comparing import comparable
from ..lang.corpus import CASES, Case
from ..lang.test_differential import NAMES, copied


def asks_nothing(prompt: str, params: rf.SamplingParams) -> str:
    raise AssertionError(f"a replay asks the model: {prompt!r}")


def once(case: Case, *, eager: bool, **options: Any) -> Run:
    (run,) = case.program.run_batch([dict(copied(case).arguments)], eager=eager, **options)
    return run


def told(run: Run) -> dict[str, Any]:
    """All that is to be the same; whole if it ended well."""
    usage = dataclasses.replace(run.usage, wall_ms=0.0)
    whole = {"text": run.text, "vars": run.vars, "trace": run.trace, "usage": usage} if run.ok else {}
    found = {"value": run.value, "error": type(run.error), "message": getattr(run.error, "message", str(run.error))}
    return {name: comparable(item) if name != "trace" else item for name, item in (found | whole).items()}


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_what_was_recorded_is_played(case: Case, tmp_path: Path) -> None:
    none = ScriptedBackend(asks_nothing, score=asks_nothing)  # type: ignore[arg-type]
    for eager in (False, True):
        file = tmp_path / f"{eager}.rec"
        recorded = once(case, eager=eager, backend=ScriptedBackend(), record=file)
        if not eager:
            assert told(once(case, eager=False, backend=none, replay=file)) == told(recorded)
        if recorded.ok:
            other = once(case, eager=not eager, backend=none, replay=file)
            assert comparable(other.value) == comparable(recorded.value)
            assert (other.text, comparable(other.vars)) == (recorded.text, comparable(recorded.vars))
        else:
            assert type(once(case, eager=not eager, backend=none, replay=file).error) is type(recorded.error)
