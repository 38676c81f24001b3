"""A program that is stepped gives what it gives when it is not: over the corpus, one step after the other."""

from __future__ import annotations

import pytest
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import UsageError
from ramify.lang.stepping.attempt import Attempt
from ramify.lang.stepping.debugger import check_steps
from ramify.lang.stepping.memory import Memory
from ramify.lang.stepping.scene import Scene

from . import comparing
from .corpus import CASES, Case
from .test_differential import NAMES, _is_own, copied


def stepped(case: Case) -> tuple[dict[str, object], int]:
    """What a case comes to that is looked at before each of its steps, and how many these are."""
    program = case.program.options(backend=ScriptedBackend())
    check_steps(program)
    attempt = Attempt(program, program.signature.bind((), case.arguments), program.run_options, Memory().cassette())
    num_steps = 0
    while (moment := attempt.next()) is not None:
        visit, scene = moment.visit, Scene(moment.visit)
        assert scene.visit.prompt.branch in [each.branch for each in scene.branches]
        scene.namespace()
        assert visit.step.statement is not None and visit.step.op.span is not None
        num_steps += 1
        attempt.leave(moment)
    return comparing.outcome(attempt.run, _is_own), num_steps


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_same_as_without(case: Case) -> None:
    (run,) = case.program.run_batch([dict(copied(case).arguments)], backend=ScriptedBackend())
    try:
        found, num_steps = stepped(copied(case))
    except UsageError as error:
        pytest.skip(f"runs as Python: {error.message}")
    assert found == comparing.outcome(run, _is_own)
    assert num_steps or run.error is not None
