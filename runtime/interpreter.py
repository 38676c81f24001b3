"""Executes modules of IR: a program instance is one coroutine on the loop, without a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import FunctionType
from typing import Any

from ..ir.core import Module, Op
from ..ir.debug_info import DebugInfo
from ..ir.turns import keeps_states
from .apart import part_step
from .flow import flow_call, flow_for, flow_if, flow_invoke, flow_while, invoke
from .linker import Frame, LinkedFunction, Linker
from .pending import Pending
from .program_steps import ProgramStep
from .prompt import Prompt
from .stepping import SteppingLinker
from .steps import MAKERS, cell_new, prompt_fork, py_call
from .strand import Strand
from .trying import flow_try


class Interpreter:
    """A linked module. `python` gives each function's Python function, for its globals, closure and defaults, also
    those of functions that were inlined.

    new_cell makes the user's State of a prompt, new_group the group of a fork from the forked cell and the branches'
    cells. (They are not known here, because lang/ stands above.) debug: for a module that is stepped, and that no pass
    has rewritten; its runs then stop for their context's stepper. steps: those of such a module, each with the name of
    its function.
    """

    def __init__(
        self,
        module: Module,
        python: Mapping[str, FunctionType],
        new_cell: Callable[[Prompt], Any],
        new_group: Callable[[Any, list[Any]], Any],
        debug: DebugInfo | None = None,
    ) -> None:
        """Raises SyntaxError for host code that Python does not accept."""
        functions: dict[str, LinkedFunction] = {}
        makers = MAKERS | {
            "flow.if": flow_if,
            "flow.for": flow_for,
            "flow.while": flow_while,
            "flow.try": flow_try,
            "flow.invoke": flow_invoke,
            "flow.call": flow_call,
            "py.call": partial(py_call, python=python),
            "cell.new": partial(cell_new, new_cell=new_cell),
            "prompt.fork": partial(prompt_fork, new_cell=new_cell, new_group=new_group),
        }
        has_parts = any(op.attrs.get("ahead") for op in module.walk()) and keeps_states(module)
        link = Linker if debug is None else partial(SteppingLinker, debug)
        self.steps: list[tuple[ProgramStep, str]] = []
        for name, function in module.functions.items():
            linker = link(function, python[name], python, makers, part_step if has_parts else None, functions)
            functions[name] = linker.link()
            if isinstance(linker, SteppingLinker):
                self.steps += [(step, python[name].__name__) for step in linker.stops.values()]
        self._entry = functions[module.entry]

    async def run(self, strand: Strand, arguments: Sequence[Any]) -> Any:
        """Run the entry on one value for each parameter (a cell for the state); gives its value, once it has arrived.

        Awaited inside a Routine only.
        """
        value = await invoke(self._entry, strand, list(arguments), 1)
        while isinstance(value, Pending):
            value = await value
        return value

    def call(self, caller: Frame, op: Op, arguments: Sequence[Any]) -> Coroutine[Any, Any, Any]:
        """The same as a call by an op of another program; the value may still be on its way."""
        caller.strand.has_visitors = True
        handled, depth = caller.handled, caller.depth + 1
        return invoke(self._entry, caller.strand, list(arguments), depth, handled, (caller, op))
