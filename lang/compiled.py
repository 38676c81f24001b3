"""A program's compiled form: the module of IR, what it was compiled against, and the interpreter that runs it."""

from __future__ import annotations

from types import FunctionType

from ..compiler.frontend import EagerNote, compile_function
from ..compiler.pipeline import run_pipeline
from ..ir.core import Module
from ..ir.printer import print_module
from ..runtime.interpreter import Interpreter
from .state import ForkGroup, State


class Compiled:
    """The result of `program.compile()`."""

    def __init__(self, function: FunctionType) -> None:
        """Compile. Raises CompileError, with the user's line."""
        self.lowered = compile_function(function)
        self.module: Module = run_pipeline(self.lowered.module)
        self.interpreter = Interpreter(self.module, self.lowered.python, State, ForkGroup)

    @property
    def ir(self) -> str:
        """The module after all passes, as text."""
        return print_module(self.module)

    @property
    def eager(self) -> list[EagerNote]:
        """The parts that run eagerly, and why."""
        return self.lowered.eager

    def current(self) -> bool:
        """Whether the names that the program uses still mean what they meant when it was compiled."""
        return self.lowered.current()

    def __repr__(self) -> str:
        return f"<Compiled {self.module.entry}: {sum(1 for _ in self.module.walk())} ops>"
