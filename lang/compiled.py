"""A program's compiled form: the module of IR, what it was compiled against, and the interpreter that runs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from types import FunctionType
from typing import TYPE_CHECKING, Unpack

from ..compiler.frontend import EagerNote, Lowered, compile_function
from ..compiler.groups import check_groups
from ..compiler.pipeline import run_pipeline
from ..compiler.portable import pack, unpack
from ..compiler.rebound import warn_rebound
from ..ir import files
from ..ir.codec import encode
from ..ir.core import Module, clone
from ..ir.debug_info import DebugInfo
from ..ir.printer import print_module
from ..runtime.interpreter import Interpreter
from .constraints import check_constraints
from .execution import is_async
from .state import ForkGroup, State

if TYPE_CHECKING:
    from .explain import ExplainKeywords, Explanation
    from .program import Row


class Compiled:
    """The result of `program.compile()`: `module` after all passes, and the interpreter that runs it."""

    def __init__(
        self, lowered: Lowered, module: Module, disable: tuple[str, ...] = (), debug: DebugInfo | None = None
    ) -> None:
        """disable: the passes that were left out on the way from `lowered` to the module. debug: see Interpreter."""
        self.lowered = lowered
        self.module = module
        self.disable = disable
        self.interpreter = Interpreter(module, lowered.python, State, ForkGroup, debug)
        self.is_async = is_async(lowered.python[module.entry])

    @classmethod
    def of(
        cls,
        function: FunctionType,
        *,
        position: int = 0,
        receiver: type | None = None,
        disable: Sequence[str] = (),
    ) -> Compiled:
        """Compile a function, without the passes in `disable`.

        position and receiver: see compile_function. Raises CompileError, RequestError for a constraint that cannot be
        kept and UsageError for a generation in an unordered group, all with the user's line. Warns of texts that are
        assigned to a state's name.
        """
        lowered = compile_function(function, position=position, receiver=receiver)
        warn_rebound(lowered.rebound, function)
        module = run_pipeline(lowered.module, disable=disable)
        check_groups(module)
        check_constraints(module, lowered.python)
        return cls(lowered, module, tuple(disable))

    @classmethod
    def for_stepping(cls, function: FunctionType, *, position: int = 0, receiver: type | None = None) -> Compiled:
        """What is run to step through a function: its ops as written, before any pass. See `of`."""
        lowered = compile_function(function, position=position, receiver=receiver, debug=True)
        return cls(lowered, lowered.module, debug=lowered.debug)

    def stepping(self) -> Compiled:
        """The same module, to step through it: of one that was read from a file, nothing else is left."""
        module = clone(self.module)
        for op in module.walk():  # what ran beside runs in its turn
            op.attrs = {name: value for name, value in op.attrs.items() if name not in ("ahead", "apart")}
        return Compiled(Lowered(module, self.lowered.python), module, debug=DebugInfo())

    @classmethod
    def load(cls, path: str | PathLike[str], *, trust: bool = False) -> Compiled:
        """Read what `save` wrote. With `trust`, runs the host code that the file holds.

        Raises UntrustedCode, which lists that code, without `trust`; DecodeError for imports that are missing here.
        """
        return cls._of_module(files.load(path, trust=trust))

    @classmethod
    def loads(cls, data: bytes, name: str, *, trust: bool = False) -> Compiled:
        """The same of what such a file holds. name: of where it comes from, for errors."""
        return cls._of_module(files.loads(data, name, trust=trust))

    @classmethod
    def _of_module(cls, module: Module) -> Compiled:
        return cls(Lowered(module, unpack(module)), module)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the module and the host code it needs: as text if the name ends in `.ir`, else in binary.

        Raises CompileError for a global or closure variable that cannot travel.
        """
        files.save(self._packed(), path)

    def saved(self) -> bytes:
        """What `save` writes, in binary. Raises as that does."""
        return encode(self._packed())

    def _packed(self) -> Module:
        module = clone(self.module)
        pack(self.lowered, module)
        return module

    def without(self, name: str) -> Compiled:
        """The same program without one more pass. Raises UsageError for a name that is no pass."""
        disable = (*self.disable, name)
        return Compiled(self.lowered, run_pipeline(self.lowered.module, disable=disable), disable)

    @property
    def is_from_file(self) -> bool:
        """Whether it was read from a file, after all passes."""
        return self.lowered.module is self.module

    def explain(self, rows: Iterable[Row] | None = None, **options: Unpack[ExplainKeywords]) -> Explanation:
        """What it costs to run over rows: see Program.explain. A method's receiver is one of each row's arguments."""
        from .program import of_compiled

        return of_compiled(self).explain(rows, **options)

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

    def _repr_html_(self) -> str:
        from .html_views import module_html

        return module_html(self.module)
