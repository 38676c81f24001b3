"""`:step`: goes through a run of a program step by step."""

from __future__ import annotations

from functools import partial

from ...ir.errors import UsageError
from ..program import Program
from ..session import Session
from .command import Command, program_names
from .programs import program_call


def _step(session: Session, rest: str) -> None:
    from ..stepping.commands import begin, hear, reopen
    from ..stepping.debugger import Debugger

    if session.debugger is not None:
        raise UsageError(f"{session.debugger.program.name} is being stepped", help="q ends it")
    if not rest and session.stepped is not None:
        return reopen(session, session.stepped)
    if not rest:
        raise UsageError(":step takes the name of a program and its arguments", help=STEP.form)
    program, args, kwargs = program_call(session, rest)
    arguments = program.signature.bind(args, kwargs)

    def others() -> list[Program]:
        return list(session.programs().values())

    begin(session, Debugger(program, arguments, program.run_options, others, partial(hear, session)))


STEP = Command(
    ":step",
    "[PROGRAM [ARGUMENTS]]",
    "go through a run step by step; alone, back into the last one",
    _step,
    program_names,
)
