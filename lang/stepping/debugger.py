"""Steps through a run of a program: forward to a step, a breakpoint or the end; back; and other values on the way.

A run that is stepped goes in the program's order, one thing after the other: its form is the one before any pass, and a
step begins when all that was asked for before it has come. To go back, the program is run again up to an earlier step,
with what it was answered before (memory.py), and given the same other values on the way.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ...ir.errors import RamifyError, UsageError
from ...runtime.generation import Generation
from ..arguments import Arguments
from ..compiled import Compiled
from ..options import Options
from ..program import Program
from ..run import Run
from .assigning import Assignment, assign
from .assigning import parse as parse_assignment
from .attempt import Attempt, Heard, Moment, Place, place_of
from .breakpoints import Breakpoint, Known, holds, parse
from .memory import Memory
from .scene import Scene

_CHANGED = "the program did something else here when it was run again"


@dataclass(slots=True)
class Halt:
    """Where the program has stopped, and why."""

    scene: Scene
    moment: Moment
    reasons: list[str]


class Debugger:
    """A program that is stepped. halt: where it stands; None once it has ended."""

    def __init__(
        self,
        program: Program,
        arguments: Arguments,
        options: Options,
        others: Callable[[], list[Program]],
        hear: Callable[[Heard], None] = lambda heard: None,
    ) -> None:
        """others: the programs that a call of a value may turn out to be. hear: is told what has been answered.

        Raises UsageError for a program that runs as Python, and what compiling it raises.
        """
        check_steps(program)
        self.program = program
        self.halt: Halt | None = None
        self.breakpoints: list[Breakpoint] = []
        self._options = options
        self._others = others
        self._hear = hear
        self._known: Known | None = None
        self._num_made = 0
        self._places: list[Place] = []
        self._assignments: list[tuple[int, Assignment]] = []
        self._memory = Memory()
        self._arguments = arguments
        self._values = copied(arguments.values)
        self._attempt = Attempt(program, arguments, options, self._memory.cassette())

    @property
    def scene(self) -> Scene:
        """Where the program stands. It must not have ended."""
        assert self.halt is not None
        return self.halt.scene

    @property
    def run(self) -> Run:
        """The run, once it has ended."""
        return self._attempt.run

    @property
    def notes(self) -> list[str]:
        """What going back asks for again, since it could not be recorded."""
        return self._memory.notes

    # Forward.

    def begin(self) -> None:
        """Come to the first step."""
        self._go(lambda moment: True)

    def next(self) -> None:
        """Go on to the next step here, over the programs that are called."""
        assert self.halt is not None
        strand, calls = self.halt.moment.depth
        self._leave()
        self._go(lambda moment: moment.depth <= (strand, calls))

    def step(self) -> None:
        """Go on to the next step, wherever it is."""
        self._leave()
        self._go(lambda moment: True)

    def go_on(self) -> None:
        """Go on to the next breakpoint, or the end."""
        self._leave()
        self._go(lambda moment: False)

    def _leave(self) -> None:
        assert self.halt is not None
        self._attempt.leave(self.halt.moment)

    def _go(self, is_reached: Callable[[Moment], bool]) -> None:
        """Take the step that the run comes to next, and go on from it until one is reached."""
        while (moment := self._attempt.next()) is not None:
            self._hear(moment.heard)
            scene = Scene(moment.visit)
            self._places[moment.number - 1 :] = [place_of(moment.visit)]
            reasons = list(self._hits(scene, moment))
            if reasons or is_reached(moment):
                self.halt = Halt(scene, moment, reasons)
                return
            self._attempt.leave(moment)
        self._hear(self._attempt.heard())
        self.halt = None

    def quit(self) -> None:
        """End the run here."""
        if self.halt is not None:
            del self._places[self.halt.moment.number :]
        self.halt = None
        self._attempt.cancel()

    # Back.

    def back(self, count: int = 1) -> None:
        """Go back by so many steps. Raises UsageError for more than there were."""
        assert self.halt is not None
        number = self.halt.moment.number
        if count >= number:
            raise UsageError("there is no step before the first" if count == 1 else f"{number - 1} steps lie behind")
        self._again(number - count)

    def reopen(self) -> None:
        """Go back into a run that is over, to its last step. Raises UsageError for one that had none."""
        if not self._places:
            raise UsageError(f"{self.program.name} has come to no step")
        self._again(len(self._places))

    def _again(self, number: int) -> None:
        """Run the program again up to the step of a number, as it went before."""
        self._attempt.cancel()
        self._assignments = [each for each in self._assignments if each[0] <= number]
        self._attempt = Attempt(self.program, self._fresh_arguments(), self._options, self._memory.cassette())
        self.halt = None
        with contextlib.redirect_stdout(io.StringIO()):  # what the program prints was printed before
            for place in self._places[:number]:
                if (moment := self._attempt.next(place)) is None:
                    return
                scene = Scene(moment.visit)
                changed = self._set_again(scene, moment) if place_of(moment.visit) == place else [_CHANGED]
                if changed or moment.number == number:
                    self._attempt.heard()
                    self.halt = Halt(scene, moment, changed)
                    return
                self._attempt.leave(moment)

    def _set_again(self, scene: Scene, moment: Moment) -> list[str]:
        """Give what was set at a step its value once more; says what could not be."""
        try:
            for at, assignment in self._assignments:
                if at == moment.number:
                    assign(replace(assignment, value=copied(assignment.value)), scene)
        except Exception as error:  # the program, or what it holds, is another than it was
            return [f"{assignment.name} cannot be set again: {error}"]
        return []

    def _fresh_arguments(self) -> Arguments:
        """The arguments as they were at the beginning; parameters that were not given hold their defaults."""
        defaults = [each.default for each in self.program.signature.parameters.values()]
        given = self._arguments.values
        num_before = len(defaults) - len(given)
        values = [
            value if value is default else copied(kept)
            for value, kept, default in zip(given, self._values, defaults[num_before:], strict=True)
        ]
        return replace(self._arguments, values=tuple(values))

    # Other values.

    def set(self, text: str) -> str:
        """Give something another value: `NAME = VALUE`. Says what was set. Raises UsageError where that cannot be."""
        assert self.halt is not None
        assignment = parse_assignment(text, self.scene)
        kept = replace(assignment, value=copied(assignment.value))
        told = assign(assignment, self.scene)
        self._assignments.append((self.halt.moment.number, kept))
        self._attempt.heard()
        return told

    # Breakpoints.

    def add_breakpoint(self, text: str) -> Breakpoint:
        """Set one. Raises UsageError for what can never bind."""
        span = self.scene.visit.step.statement
        made = parse(text, self._num_made + 1, self.known, span.file if span is not None else "")
        self._num_made += 1
        self.breakpoints.append(made)
        return made

    def delete_breakpoint(self, number: int) -> None:
        """Delete one. Raises UsageError for a number that none has."""
        if not any(each.number == number for each in self.breakpoints):
            raise UsageError(f"there is no breakpoint {number}", help="b lists them")
        self.breakpoints = [each for each in self.breakpoints if each.number != number]

    @property
    def known(self) -> Known:
        """What the program may come to."""
        if self._known is None:
            forms = [self.program.stepped()]
            calls_values = any(step.op.name == "flow.invoke" for step, _ in forms[0].interpreter.steps)
            if calls_values or forms[0].is_async:
                forms += [form for each in self._others() if (form := _form(each)) is not None]
            self._known = Known.of(forms)
        return self._known

    def _hits(self, scene: Scene, moment: Moment) -> Iterator[str]:
        """Why the program stops here, if it does."""
        for each in self.breakpoints:
            if each.is_at(moment):
                hit, wrong = holds(each, scene)
            else:
                hit, wrong = _has_generated(each, scene, moment.heard)
            if hit:
                each.num_hits += 1
                yield wrong or f"breakpoint {each.number}: {each.told}"


def _has_generated(each: Breakpoint, scene: Scene, heard: Heard) -> tuple[bool, str]:
    for call in heard:
        if isinstance(call, Generation) and each.is_for(call) and call.error is None:
            found = holds(each, scene, {str(call.expression.name): call.value()})
            if found[0]:
                return found
    return False, ""


def copied(value: Any) -> Any:
    """A value with lists, tuples, dicts and sets of its own; what else is in it is the same."""
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(copied(item) for item in value)
    return value


def _form(program: Program) -> Compiled | None:
    """The form in which another program is stepped; None for one that does not compile, and so is not called."""
    try:
        return program.stepped()
    except RamifyError:
        return None


def check_steps(program: Program) -> None:
    """Raises UsageError for a program that the compiler leaves to Python as a whole: there are no steps to stop at."""
    compiled = program.stepped()
    body = compiled.module.functions[compiled.module.entry].body
    if body.ops and body.ops[0].name == "py.call":
        note = next(iter(compiled.eager), None)
        raise UsageError(
            f"{program.name} runs as Python, so it cannot be stepped" + (f": {note.reason}" if note else ""),
            span=note.span if note else None,
            help="Python's own debugger can: breakpoint() in the program, and NAME.run(..., eager=True)",
        )
