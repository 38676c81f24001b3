"""Steps through a run of a program: forward to a step, a breakpoint or the end, and other values on the way.

A run that is stepped goes in the program's order, one thing after the other: its form is the one before any pass, and a
step begins when all that was asked for before it has come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...ir.errors import UsageError
from ...runtime.generation import Generation
from ...runtime.linker import Frame
from ...runtime.stepping import Visit
from ...runtime.strand import Strand
from ...runtime.toolcall import ToolCall
from ..arguments import Arguments
from ..options import Options
from ..program import Program
from ..run import Run
from .assigning import assign
from .assigning import parse as parse_assignment
from .attempt import Attempt
from .breakpoints import Breakpoint, Known, holds, parse
from .scene import Scene

_Reached = Callable[[Visit], bool]


@dataclass(slots=True)
class Halt:
    """Where the program has stopped, and why."""

    scene: Scene
    reasons: list[str]


class Debugger:
    """A program that is stepped. halt: where it stands; None once it has ended. number: of the step, from 1.

    news: what has been answered since it stopped before.
    """

    def __init__(self, program: Program, arguments: Arguments, options: Options, others: Callable[[], list[Program]]):
        """others: the programs that a call of a value may turn out to be.

        Raises UsageError for a program that runs as Python, and what compiling it raises.
        """
        self.program = program
        self.halt: Halt | None = None
        self.number = 0
        self.news: list[Generation | ToolCall] = []
        self.breakpoints: list[Breakpoint] = []
        self._options = options
        self._others = others
        self._known: Known | None = None
        self._num_made = 0
        self._told: set[int] = set()
        self._strands: list[Strand] = []
        self._last_frame: Frame | None = None
        _refuse_python(program)
        self._attempt = Attempt(program, arguments, options)

    def begin(self) -> None:
        """Come to the first step."""
        self._arrive(self._attempt.next(), lambda visit: True)

    def next(self) -> None:
        """Go on to the next step here, over the programs that are called."""
        here = self.scene.visit
        place = self._place(here)

        def is_here(visit: Visit) -> bool:
            strand, depth = self._place(visit)
            return strand < place[0] or (strand == place[0] and depth <= place[1])

        self._go(is_here)

    def step(self) -> None:
        """Go on to the next step, wherever it is."""
        self._go(lambda visit: True)

    def go_on(self) -> None:
        """Go on to the next breakpoint, or the end."""
        self._go(lambda visit: False)

    @property
    def scene(self) -> Scene:
        """Where the program stands. It must not have ended."""
        assert self.halt is not None
        return self.halt.scene

    @property
    def run(self) -> Run:
        """The run, once it has ended."""
        return self._attempt.run

    def leave(self) -> None:
        """End the run here."""
        self.halt = None
        self._attempt.cancel()

    def _place(self, visit: Visit) -> tuple[int, int]:
        """How deep a step is: the number of its strand, and the calls in that."""
        strand = visit.frame.strand
        if not any(each is strand for each in self._strands):
            self._strands.append(strand)
        return next(n for n, each in enumerate(self._strands) if each is strand), visit.frame.depth

    def _go(self, is_reached: _Reached) -> None:
        self._attempt.leave(self.scene.visit)
        self._arrive(self._attempt.next(), is_reached)

    def _arrive(self, visit: Visit | None, is_reached: _Reached) -> None:
        """Take a step that the run has come to, and go on from it until one is reached."""
        self.news = []
        while visit is not None:
            self.number += 1
            self._place(visit)
            heard = self._heard()
            self.news += heard
            enters, self._last_frame = self._enters(visit), visit.frame
            scene = Scene(visit)
            reasons = list(self._hits(scene, heard, enters=enters))
            if reasons or is_reached(visit):
                self.halt = Halt(scene, reasons)
                return
            self._attempt.leave(visit)
            visit = self._attempt.next()
        self.news += self._heard()
        self.halt = None

    def _enters(self, visit: Visit) -> bool:
        """Whether a step is the first of a called function."""
        frame, last = visit.frame, self._last_frame
        return frame is not last and (last is None or frame.depth > last.depth or frame.strand is not last.strand)

    def _heard(self) -> list[Generation | ToolCall]:
        """What has been answered since this was asked for before."""
        asked = [each for each in self._attempt.asked if id(each) not in self._told]
        self._told.update(map(id, asked))
        return asked

    def set(self, text: str) -> str:
        """Give something another value: `NAME = VALUE`. Says what was set. Raises UsageError where that cannot be."""
        told = assign(parse_assignment(text, self.scene), self.scene)
        self._told.update(id(each) for each in self._attempt.asked)
        return told

    # Breakpoints.

    def add_breakpoint(self, text: str) -> Breakpoint:
        """Set one. Raises UsageError for what can never bind."""
        span = self.scene.visit.step.statement
        file = span.file if span is not None else ""
        made = parse(text, self._num_made + 1, self.known, file)
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
            if any(step.op.name == "flow.invoke" for step, _ in forms[0].interpreter.steps):
                forms += [each.stepped() for each in self._others()]
            steps = [each for form in forms for each in form.interpreter.steps]
            functions = [function for form in forms for function in form.lowered.python.values()]
            names = {name for step, _ in steps for name in (*step.names, *([step.name] if step.name else ()))}
            names |= {name for each in functions for name in (*each.__globals__, *each.__code__.co_freevars)}
            compiled = dict.fromkeys(name for _, name in steps)
            self._known = Known(steps, list(compiled), frozenset(names))
        return self._known

    def _hits(self, scene: Scene, heard: list[Generation | ToolCall], *, enters: bool) -> Iterator[str]:
        """Why the program stops here, if it does."""
        for each in self.breakpoints:
            if each.is_at(scene.visit, enters=enters):
                hit, wrong = holds(each, scene)
            else:
                hit, wrong = self._has_generated(each, scene, heard)
            if hit:
                each.num_hits += 1
                yield wrong or f"breakpoint {each.number}: {each.told}"

    def _has_generated(self, each: Breakpoint, scene: Scene, heard: list[Generation | ToolCall]) -> tuple[bool, str]:
        for call in heard:
            if isinstance(call, Generation) and each.is_for(call) and call.error is None:
                found = holds(each, scene, {str(call.expression.name): call.value()})
                if found[0]:
                    return found
        return False, ""


def _refuse_python(program: Program) -> None:
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
