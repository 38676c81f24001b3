"""Runs a program step by step: a linker whose steps wait for leave, before each of the program's steps, to go on.

It links a module that no pass has rewritten, with its debug information. So nothing runs beside anything else, and a
step begins when all that was asked for before it has come. Interpreters without debug information know nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import CellType
from typing import Any, Protocol

from ..ir.core import Op, Value
from ..ir.debug_info import DebugInfo
from ..ir.ops import OPS
from ..ir.types import CELL
from .context import Context
from .host import Unbound, Variable
from .linker import Frame, LinkedRegion, Linker, Step
from .pending import Pending, Settled
from .program_steps import ProgramStep, find_steps
from .prompt import Prompt


class Stepper(Protocol):
    """Whoever goes through a run."""

    def arrive(self, visit: Visit) -> None:
        """The run has come to a step, and waits until the visit's gate is opened. On the loop."""


class Visit:
    """A run that is before a step. `gate`, once it has a result, lets it go on. slots: the step's names and places."""

    __slots__ = ("_place", "_slots", "frame", "gate", "step")

    def __init__(self, frame: Frame, step: ProgramStep, slots: dict[str, list[int]], place: int | None) -> None:
        self.frame = frame
        self.step = step
        self.gate: Pending[None] = Pending()
        self._slots = slots
        self._place = place

    @property
    def prompt(self) -> Prompt:
        """The prompt that the step is about to use: that of its state, or what the statement has made of it so far."""
        held = None if self._place is None else self.frame.values[self._place]
        found = getattr(held, "prompt", None)
        return found if isinstance(found, Prompt) else self.frame.strand.state.prompt

    @property
    def variables(self) -> dict[str, Any]:
        """The local variables that have a value, which may be a Pending."""
        found = {name: _held(self.frame.values[slots[0]]) for name, slots in self._slots.items()}
        return {name: value for name, value in found.items() if not isinstance(value, Unbound)}

    @property
    def local_names(self) -> list[str]:
        """The names of all local variables, also of those that have no value yet."""
        return list(self._slots)

    def assign(self, name: str, value: Any) -> list[str]:
        """Give a local variable another value; gives the other names that stand for the same one, and have it too."""
        values = self.frame.values
        for slot in self._slots[name]:
            held = values[slot]
            if isinstance(held, Variable):
                held.value = value
            elif isinstance(held, CellType):
                held.cell_contents = value
            else:
                values[slot] = value
        return [other for other, slots in self._slots.items() if slots[0] == self._slots[name][0] and other != name]


def _held(value: Any) -> Any:
    """What a slot stands for: a box's contents, a value."""
    if isinstance(value, Variable):
        return value.value
    if not isinstance(value, CellType):
        return value
    try:
        return value.cell_contents
    except ValueError:
        return Unbound("")


class SteppingLinker(Linker):
    """Links a function so that it stops. info: the module's debug information. stops: the steps, once it is linked, by
    the op before which each is met.
    """

    def __init__(self, info: DebugInfo, *linked: Any) -> None:
        super().__init__(*linked)
        self._info = info
        self.stops: dict[Op, ProgramStep] = {}

    def row(self, args: Sequence[Value], ops: Sequence[Op]) -> LinkedRegion:
        """See Linker."""
        self.stops.update(find_steps(ops, self._info, self.host))
        region = super().row(args, ops)
        if ops and ops[-1] in self.stops and OPS[ops[-1].name].terminator:
            region.steps.append((ops[-1], self._stop(ops[-1])))
        return region

    def steps(self, ops: Sequence[Op]) -> list[tuple[Op, Step]]:
        """See Linker. A constant is put anew where it stands, since it may have been given another value since."""
        steps: list[tuple[Op, Step]] = []
        for op in ops:
            if op in self.stops:
                steps.append((op, self._stop(op)))
            if op.name == "py.const":
                steps.append((op, self.makers[op.name](self, op)))
            else:
                steps += super().steps([op])
        return steps

    def _stop(self, op: Op) -> Step:
        step = self.stops[op]
        place = step.place
        if place is None:
            place = next((each for each in self.function.body.args if each.type == CELL), None)
        slots = {name: self.slots(values) for name, values in step.names.items()}
        return partial(_stop, step=step, slots=slots, place=None if place is None else self.slot(place))


async def _stop(frame: Frame, *, step: ProgramStep, slots: dict[str, list[int]], place: int | None) -> None:
    stepper = frame.context.stepper
    if stepper is not None:
        await _settle(frame.context)
        visit = Visit(frame, step, slots, place)
        stepper.arrive(visit)
        await visit.gate


async def _settle(context: Context) -> None:
    """Wait until all that was asked for has come, or failed."""
    for leaf in list(context.leaves()):
        await Settled(leaf.pending)
