"""The front end: a decorated Python function and the helpers it hands its states to -> a module of IR.

Statements that touch a state become prompt, lm and flow ops (`statements.py`, `expressions.py`, `appends.py`); all
other statements are host code, grouped into py.* ops with explicit inputs and outputs. States are cells here; the
pass `promote` turns those that do not escape into prompt values. What cannot be compiled runs eagerly and is listed.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import FunctionType

from ..ir.builder import Builder
from ..ir.core import Function, Module, Region, Value
from ..ir.debug_info import DebugInfo
from ..ir.errors import CompileError
from ..ir.private import private_prefix, unmangled
from ..ir.span import Span
from ..ir.syntax import walk
from ..ir.types import CELL, OBJ
from .debug_info import NotingBuilder
from .lowering import Lowering, lower_body
from .rebound import Rebound, find_rebound
from .resolve import Binding, Callee, Resolver, shadowed
from .scope import LOOKED_INTO, analyse, stored_names
from .source import NoSource, Source, definition_span, function_source, own_nodes


@dataclass(frozen=True, slots=True)
class EagerNote:
    """A part of a program that runs eagerly, as Python, and why."""

    span: Span
    reason: str


@dataclass(slots=True)
class Lowered:
    """What the front end makes of a program.

    python maps each function of the module to the Python function it came from (globals, closure, defaults). `bindings`
    are the outside names the code was compiled against; when one no longer holds, the module is out of date. `rebound`
    are places where a state's name is given a text. debug: if it was asked for.
    """

    module: Module
    python: dict[str, FunctionType]
    eager: list[EagerNote] = field(default_factory=list)
    bindings: list[Binding] = field(default_factory=list)
    rebound: list[Rebound] = field(default_factory=list)
    debug: DebugInfo | None = None

    def current(self) -> bool:
        """Whether every outside name still means what it meant when this was compiled."""
        return all(binding.holds() for binding in self.bindings)


def compile_function(
    function: FunctionType, *, position: int = 0, receiver: type | None = None, debug: bool = False
) -> Lowered:
    """Compile a program and every helper that it calls with a state.

    position: which parameter is the state (that of a method is the second). receiver: the class of a method's first
    argument, in which the methods that are called on it are looked up; for instances of other classes the module is
    right, too, but such calls run as Python. debug: whether to note what debuggers want to know of the ops.
    Raises CompileError, with the user's line, for what can be neither compiled nor run eagerly.
    """
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) <= position:
        raise CompileError(
            f"program {function.__name__} has no parameters",
            span=definition_span(function),
            help="its first parameter is the state, under any name: def program(s, ...)",
        )
    work = _Work(DebugInfo() if debug else None)
    entry = work.request(Callee(function, receiver), frozenset([parameters[position]]))
    while work.queue:
        work.compile_next()
    module, bindings = Module(work.functions, entry), _distinct(work.bindings)
    return Lowered(module, work.python, work.notes, bindings, work.rebound, work.debug)


def _distinct(bindings: Iterable[Binding]) -> list[Binding]:
    """The bindings, each once: they are looked at before every run."""
    return list({(id(b.where), b.path, id(b.found)): b for b in bindings}.values())


class _Work:
    """The functions still to compile; each is compiled once for each set of parameters that are states."""

    def __init__(self, debug: DebugInfo | None = None) -> None:
        self.debug = debug
        self.queue: list[tuple[Callee, frozenset[str], str]] = []
        self.names: dict[tuple[int, type | None, frozenset[str]], str] = {}
        self.functions: dict[str, Function] = {}
        self.python: dict[str, FunctionType] = {}
        self.notes: list[EagerNote] = []
        self.bindings: list[Binding] = []
        self.rebound: list[Rebound] = []

    def request(self, callee: Callee, states: frozenset[str]) -> str:
        """The module's name for a function; it is queued when it is new."""
        function = callee.function
        key = (id(function), callee.receiver, states)
        if key not in self.names:
            base, number = function.__name__ if function.__name__.isidentifier() else "function", 2
            name = base
            while name in self.python:
                name, number = f"{base}_{number}", number + 1
            self.names[key] = name
            self.python[name] = function
            self.queue.append((callee, states, name))
        return self.names[key]

    def compile_next(self) -> None:
        callee, states, name = self.queue.pop(0)
        function = callee.function
        if hasattr(function, "__wrapped__"):
            reason = f"{function.__qualname__} is wrapped by a decorator, which runs as Python"
            return self._run_as_python(name, callee, states, definition_span(inspect.unwrap(function)), reason)
        try:
            source = function_source(function)
        except NoSource as missing:
            return self._run_as_python(name, callee, states, definition_span(function), str(missing))
        if (found := _why_eager(source)) is not None:
            return self._run_as_python(name, callee, states, source.span(found[0]), found[1])
        self.functions[name] = self._compile(name, callee, states, source)
        return None

    def _run_as_python(self, name: str, callee: Callee, states: frozenset[str], span: Span, reason: str) -> None:
        self.notes.append(EagerNote(span, reason))
        self.functions[name] = _eager_function(name, callee.function, states, span)

    def _compile(self, name: str, callee: Callee, states: frozenset[str], source: Source) -> Function:
        function = callee.function
        prefix = private_prefix(function.__qualname__)
        looked_into = sorted({n.id for n in walk(source.tree) if isinstance(n, ast.Name)} & LOOKED_INTO)
        written = {unmangled(state, prefix) for state in states}
        scope = analyse(source, written, shadowed(function, looked_into, self.bindings))
        resolver = Resolver(function, scope, self.bindings, _receiver(callee, source))
        self.rebound += find_rebound(source, resolver, written)
        body, parameters = _open(function, states)
        builder = Builder(body) if self.debug is None else NotingBuilder(body, self.debug)
        lowering = Lowering(source, scope, resolver, builder, self.request)
        if isinstance(builder, NotingBuilder):
            builder.lowering, lowering.groups = lowering, False
        lowering.on_eager = lambda node, reason: self.notes.append(EagerNote(source.span(node), reason))
        names = [unmangled(parameter, prefix) for parameter in parameters]
        lower_body(lowering, source.tree.body, dict(zip(names, body.args, strict=True)))
        if isinstance(builder, NotingBuilder):
            builder.place(source)
        return Function(name, body, parameters, source.span(source.tree))


def _receiver(callee: Callee, source: Source) -> tuple[str, type] | None:
    """The name and the class of a method's first parameter, if the name keeps its value."""
    if callee.receiver is None:
        return None
    name = unmangled(
        next(iter(inspect.signature(callee.function).parameters)), private_prefix(callee.function.__qualname__)
    )
    return None if name in stored_names(*source.tree.body) else (name, callee.receiver)


def _open(function: FunctionType, states: frozenset[str]) -> tuple[Region, list[str]]:
    """The body region of a function with one argument for each parameter, and the parameters' names."""
    parameters = list(inspect.signature(function).parameters)
    return Region([Value(CELL if name in states else OBJ, name) for name in parameters]), parameters


def _eager_function(name: str, function: FunctionType, states: frozenset[str], span: Span) -> Function:
    body, parameters = _open(function, states)
    builder = Builder(body, span)
    builder.op("flow.return", [builder.value("py.call", *body.args, callee=name)])
    return Function(name, body, parameters, builder.span)


_NEEDS_A_FRAME = {"exec", "eval", "locals"}


def _why_eager(source: Source) -> tuple[ast.AST, str] | None:
    """The node, and the reason, for which the whole function must run as Python; None when it can be compiled."""
    for node in own_nodes(source.tree):
        match node:
            case ast.Name(id=name) | ast.Call(func=ast.Name(id="dir" | "vars" as name), args=[]) if (
                name in _NEEDS_A_FRAME or isinstance(node, ast.Call)
            ):
                return node, f"`{name}` needs the function's own frame"
    return None
