"""Runs the rows of a batch dry, in step: whatever all of them have asked for is answered at once, then they go on."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from ..ir.errors import RamifyError
from ..runtime.arranging import Arranger
from ..runtime.context import Context
from ..runtime.expression import span_of
from ..runtime.generation import Generation
from ..runtime.hostpool import host_pool
from ..runtime.interpreter import Interpreter
from ..runtime.loop import loop
from ..runtime.pending import Pending
from ..runtime.routine import Routine
from ..runtime.sharing import Sharing
from ..runtime.toolcall import are_tools_quiet
from ..runtime.trail import locate
from .arguments import Arguments
from .batch import MAX_IN_FLIGHT
from .dry import Asked, Certainty, DryBackend, DryCall, DryRow, Placeholders, has_exact_length
from .guard import Guard
from .options import Options
from .state import State

# A program that still goes on after so many rounds of answers waits for an answer that placeholders do not give.
MAX_ROUNDS = 64
_POLL_SECONDS = 0.002
_QUIET_POLLS = 3


def dry_runs(
    interpreter: Interpreter, placeholders: Placeholders, rows: Sequence[Arguments], options: Options, *, run_host: bool
) -> list[DryRow]:
    """What a program would ask for on each of the rows. run_host: whether all its host code may run."""
    arranger = Arranger(decides_by_itself=False)
    found: list[DryRow] = []
    for start in range(0, len(rows), MAX_IN_FLIGHT):
        some = rows[start : start + MAX_IN_FLIGHT]
        runs = [_DryRun(interpreter, placeholders, row, options, arranger, run_host) for row in some]
        batch = _InStep(runs, arranger)
        loop().soon(batch.begin)
        batch.ended.wait()
        found += [run.row for run in runs]
    return found


class _InStep:
    """Dry runs that go on together. Everything happens on the loop thread, but for host code that may have to wait."""

    def __init__(self, runs: Sequence[_DryRun], arranger: Arranger) -> None:
        self.ended: Pending[None] = Pending()
        self._runs = list(runs)
        self._arranger = arranger
        self._num_quiet = 0

    def begin(self) -> None:
        """Run until no program can go further."""
        for run in self._runs:
            run.begin()
        loop().when_idle(self._settle)

    def _settle(self) -> None:
        """Nothing moves any more: answer what was asked for, and let end what has asked for nothing."""
        if self._waits_for_host():
            loop().later(_POLL_SECONDS, lambda: loop().when_idle(self._settle))
            return
        uses_threads = any(run.uses_threads for run in self._runs)
        if self._num_quiet < (_QUIET_POLLS if uses_threads else 1):
            self._num_quiet += 1  # what a thread has posted since may still be in the queue
            loop().later(_POLL_SECONDS if uses_threads else 0.0, lambda: loop().when_idle(self._settle))
            return
        self._num_quiet = 0
        if not self._arranger.decide():
            self._runs = [run for run in self._runs if run.go_on()]
        if self._runs:
            loop().when_idle(self._settle)
        else:
            self.ended.set_result(None)

    def _waits_for_host(self) -> bool:
        """Whether host threads are at work. One that was just woken does not count as working yet, so we look again."""
        if host_pool().is_quiet and are_tools_quiet():
            return False
        self._num_quiet = 0
        return True


class _DryRun:
    """The dry run of a row."""

    def __init__(
        self,
        interpreter: Interpreter,
        placeholders: Placeholders,
        arguments: Arguments,
        options: Options,
        arranger: Arranger,
        run_host: bool,
    ) -> None:
        self.row = DryRow()
        self._guard: Guard | None = None
        self._interpreter = interpreter
        self._backend = DryBackend(placeholders)
        self._arguments = arguments
        self._options = options
        self._arranger = arranger
        self._run_host = run_host
        self._certain: dict[Generation, Certainty] | None = None
        self._depth = 0
        self._conclusion: Routine[BaseException | None] | None = None

    @property
    def uses_threads(self) -> bool:
        """Whether any of its host code has run on a host thread."""
        return self._guard is None or self._guard.uses_threads

    def begin(self) -> None:
        """Start the program."""
        context = self._context = Context(self._backend, self._options.sampling, sharing=Sharing(self._arranger))
        context.is_compiled = True
        if not self._run_host:
            context.run_guarded = self._guard = Guard(context)
        state = context.strand.state = State(context.root())
        # What the program changes of its arguments is its own affair.
        values = self._arguments.with_state(state) if self._run_host else _copied(self._arguments, state)
        self._body = Routine(self._interpreter.run(context.strand, values))
        self._body.start()

    def go_on(self) -> bool:
        """Answer what was asked for, or end where nothing was. False once it has ended."""
        if self._conclusion is not None:
            return self._has_not_concluded()
        if self._certain is None:
            self._certain = {call: _certainty(call) for call in self._context.calls}
        asked = self._backend.take()
        if not asked:
            self._end(None)
        elif self._depth == MAX_ROUNDS:
            self._end(
                RamifyError(f"it asks on after {MAX_ROUNDS} rounds of answers: its end depends on what is generated")
            )
        else:
            self._depth += 1
            self.row.calls += [self._call(each) for each in asked]
            for each in asked:
                each.generation(each.done)
        return self._conclusion is None or self._has_not_concluded()

    def _call(self, asked: Asked) -> DryCall:
        generation, certain = asked.generation, self._certain or {}
        return DryCall(
            generation.expression.kind,
            generation.expression.name,
            span_of(generation.where),
            asked.sent,
            asked.key,
            self._depth,
            certain.get(generation, "estimate"),
            generation in certain,
            has_exact_length(generation),
        )

    def _end(self, gave_up: RamifyError | None) -> None:
        if not self._body.done:
            self._context.cancel(gave_up)
            self._body.cancel(gave_up or RamifyError("it waits for something that no dry run brings"))
        error = gave_up or self._body.error
        locate(error)
        self._conclusion = Routine(self._context.conclude(error))
        self._conclusion.start()

    def _has_not_concluded(self) -> bool:
        conclusion = self._conclusion
        if conclusion is None or not conclusion.done:
            return True
        self.row.stopped = conclusion.error or conclusion.result()
        locate(self.row.stopped)
        self.row.is_certain = self._depth == 0
        return False


def _copied(arguments: Arguments, state: State) -> tuple[Any, ...]:
    """The arguments in copies. What cannot be copied is no plain value, and is given to no host code."""
    try:
        values = deepcopy(arguments.values)
    except Exception:
        values = arguments.values
    return (*arguments.before, state, *values)


def _certainty(call: Generation) -> Certainty:
    """What is known of a call that was asked for before anything was generated."""
    found: Certainty = "exact"
    for node in call.prompt.upwards():
        if node.kind == "text" and isinstance(node.value, Pending):
            return "estimate"
        if node.kind == "select" or (node.kind == "gen" and not has_exact_length(node.value)):
            found = "bound"
    return found
