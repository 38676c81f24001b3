"""A program that is stepped gives what it gives when it is not, also when one goes back: over a part of the corpus."""

from __future__ import annotations

import pytest
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import UsageError
from ramify.lang.stepping.debugger import Debugger

from . import comparing
from .corpus import CASES, Case
from .test_differential import NAMES, _is_own, copied

PART = slice(0, None, 3)


def begun(case: Case, backend: ScriptedBackend) -> Debugger:
    program = case.program.options(backend=backend)
    try:
        debugger = Debugger(program, program.signature.bind((), case.arguments), program.run_options, lambda: [])
    except UsageError as error:
        pytest.skip(f"runs as Python: {error.message}")
    debugger.begin()
    return debugger


def stepped_through(debugger: Debugger) -> int:
    """Go to the end, and look around before each step; gives how many there were."""
    num_steps = 0
    while debugger.halt is not None:
        num_steps += 1
        scene, step = debugger.halt.scene, debugger.halt.moment.visit.step
        assert scene.visit.prompt.branch in [each.branch for each in scene.branches]
        scene.namespace()
        assert step.statement is not None and step.op.span is not None
        debugger.step()
    return num_steps


@pytest.mark.parametrize("case", CASES[PART], ids=NAMES[PART])
def test_the_same_as_without(case: Case) -> None:
    (run,) = case.program.run_batch([dict(copied(case).arguments)], backend=ScriptedBackend())
    whole, backend = comparing.outcome(run, _is_own), ScriptedBackend()
    debugger = begun(copied(case), backend)
    num_steps = stepped_through(debugger)
    assert comparing.outcome(debugger.run, _is_own) == whole
    if not num_steps:
        assert not run.ok
        return
    requests = list(backend.requests)
    debugger.reopen()
    assert debugger.halt is not None and debugger.halt.moment.number == num_steps and not debugger.halt.reasons
    if num_steps > 1:
        debugger.back(num_steps // 2)
    debugger.go_on()
    again = comparing.outcome(debugger.run, _is_own)
    if run.ok:
        assert again == whole and backend.requests == requests
    else:  # what has failed is tried again, and what had come by then is a matter of time
        assert (again["error"], again["line"]) == (whole["error"], whole["line"])
