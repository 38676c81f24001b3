"""The IR's data: modules hold functions, functions hold a region, regions hold ops, ops use and define values.

    Module   { name -> Function, entry }
    Function { name, body: Region whose arguments are the parameters, param_names, span }
    Region   { args: [Value], ops: [Op] }          one block; the last op is a terminator
    Op       { name, operands: [Value], results: [Value], attrs, regions: [Region], span, inlined: (Inlined, ...) }
    Value    { type, name }                        defined once, compared by identity

Ops are mutable so that passes can rewrite them in place; `clone` copies a module before a pipeline runs.
What an op means, takes and gives is declared as data in `ops.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .span import Span
from .types import Type

# None | bool | int | float | str | list | dict with str keys, nested.
Attr = Any


@dataclass(eq=False, slots=True)
class Value:
    """One SSA value. The name is a hint for people; the printer makes it unique."""

    type: Type
    name: str = ""


@dataclass(frozen=True, slots=True)
class Inlined:
    """A call that the pass `inline` has replaced by the callee's ops: the function's name, and where it was called."""

    callee: str
    span: Span | None


@dataclass(eq=False, slots=True)
class Op:
    """One operation: uses `operands`, defines `results`, may hold regions; `span` is the user's source.

    inlined: the calls that led to the op and are no ops any more, the innermost first. The op belongs to the first
    one's function: that is what its host code sees, and what errors name.
    """

    name: str
    operands: list[Value] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)
    attrs: dict[str, Attr] = field(default_factory=dict)
    regions: list[Region] = field(default_factory=list)
    span: Span | None = None
    inlined: tuple[Inlined, ...] = ()

    @property
    def result(self) -> Value:
        """The only result of an op that has exactly one."""
        (value,) = self.results
        return value

    def walk(self) -> Iterator[Op]:
        """The op and those in its regions."""
        yield self
        for region in self.regions:
            yield from region.walk()


@dataclass(eq=False, slots=True)
class Region:
    """A block of ops with its own arguments; sees the values of the regions around it."""

    args: list[Value] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)

    def walk(self) -> Iterator[Op]:
        """Every op in this region and below, each before the ops of its own regions."""
        for op in self.ops:
            yield op
            for region in op.regions:
                yield from region.walk()


@dataclass(eq=False, slots=True)
class Function:
    """A compiled program or helper. `body.args` are the parameters, in the order of `param_names`."""

    name: str
    body: Region
    param_names: list[str]
    span: Span | None = None


@dataclass(eq=False, slots=True)
class Module:
    """A set of functions that call each other; `entry` names the one a run starts with.

    `sources` holds the Python source of each function's host code, `imports` what its globals are bound to
    (name -> "module" or "module:attribute"), `constants` the literal globals: enough to load and run the module
    elsewhere. All three are empty until the module is prepared for saving.
    """

    functions: dict[str, Function]
    entry: str
    sources: dict[str, str] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Attr] = field(default_factory=dict)

    def walk(self) -> Iterator[Op]:
        """Every op of every function."""
        for function in self.functions.values():
            yield from function.body.walk()


def clone(module: Module) -> Module:
    """A deep copy with fresh values, ops and regions; attributes and spans are shared (they are never mutated)."""
    functions = {}
    for name, function in module.functions.items():
        body = clone_region(function.body, {})
        functions[name] = Function(function.name, body, list(function.param_names), function.span)
    return Module(functions, module.entry, dict(module.sources), dict(module.imports), dict(module.constants))


def clone_region(region: Region, values: dict[Value, Value]) -> Region:
    """A copy of a region; `values` gives the new values of those outside of it, and gets those inside."""

    def define(old: Value) -> Value:
        values[old] = Value(old.type, old.name)
        return values[old]

    copy = Region([define(arg) for arg in region.args])
    for op in region.ops:
        made = Op(op.name, [values[v] for v in op.operands], attrs=dict(op.attrs), span=op.span, inlined=op.inlined)
        made.regions = [clone_region(r, values) for r in op.regions]
        made.results = [define(v) for v in op.results]
        copy.ops.append(made)
    return copy
