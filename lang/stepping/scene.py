"""What can be seen from where a run stands: its variables, generated texts, branches and calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import CellType
from typing import Any

from ...ir.core import Op
from ...runtime.host import Variable
from ...runtime.linker import Frame
from ...runtime.pending import Pending
from ...runtime.prompt import Prompt
from ...runtime.stepping import Visit
from ..state import ForkGroup, State
from ..transcript import Branch

_DEPTH = 3


class Scene:
    """A run before a step. selected: the prompt that is looked at: at first the one that the step is about to use."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit
        self.selected: Prompt = visit.prompt

    @property
    def branches(self) -> list[Prompt]:
        """The prompts of the states that the program holds, and that of the step, by branch."""
        found: dict[Branch, Prompt] = {state.prompt.branch: state.prompt for state in self.states()}
        found[self.visit.prompt.branch] = self.visit.prompt
        return [found[branch] for branch in sorted(found)]

    def states(self) -> list[State]:
        """The states that the program holds, here and in the calls above."""
        held = (value for frame, _ in self.calls() for value in frame.values)
        return list({id(state): state for state in _states(held, _DEPTH)}.values())

    def calls(self) -> Iterator[tuple[Frame, Op]]:
        """The calls that led here, the innermost first: each with the op that it is at."""
        frame, op = self.visit.frame, self.visit.step.op
        while True:
            yield frame, op
            if frame.caller is None:
                return
            frame, op = frame.caller

    @property
    def variables(self) -> dict[str, Any]:
        """The local variables, with values that have arrived."""
        return _arrived(self.visit.variables)

    @property
    def generated(self) -> dict[str, Any]:
        """The variables of the selected prompt, likewise."""
        return _arrived({name: node.bound_value() for name, node in self.selected.names().items()})

    def evaluate(self, source: str) -> Any:
        """The value of a Python expression here. Raises what it raises; what failed to be generated, its own error."""
        code = compile(source.strip(), "<expression>", "eval")
        try:
            return eval(code, self.namespace())
        except NameError as error:
            node = self.selected.names().get(str(error.name))
            late = None if node is None else node.bound_value()
            if isinstance(late, Pending):
                late.wait()
            raise

    def namespace(self) -> dict[str, Any]:
        """What names mean here: local variables, then the selected prompt's, then those of the function's module."""
        function = self.visit.frame.function.python
        closure = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        outer = {name: cell.cell_contents for name, cell in closure if _is_full(cell)}
        return {**function.__globals__, **outer, **self.generated, **self.variables}


def _is_full(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _arrived(values: dict[str, Any]) -> dict[str, Any]:
    """The values; those that have failed are left out."""
    found = {}
    for name, value in values.items():
        try:
            found[name] = value.wait() if isinstance(value, Pending) else value
        except Exception:
            continue
    return found


def _states(values: Iterable[Any], depth: int) -> Iterator[State]:
    """The states among values, and in what they hold."""
    for value in values:
        if isinstance(value, State):
            yield value
        elif isinstance(value, ForkGroup):
            yield from (value.parent, *value.states)
        elif isinstance(value, Variable):
            yield from _states([value.value], depth)
        elif isinstance(value, CellType) and _is_full(value):
            yield from _states([value.cell_contents], depth)
        elif isinstance(value, list | tuple | set) and depth:
            yield from _states(value, depth - 1)
        elif isinstance(value, dict) and depth:
            yield from _states(value.values(), depth - 1)
