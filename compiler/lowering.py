"""The state of lowering one function: the environment, the boxes, the loops and scopes around, and the host ops.

`env` maps each plain local variable to its SSA value; variables that nested functions share live in boxes. Those that a
try around assigns are `followed` by a variable (var.new), which is set wherever they are assigned. Values in
`unsure` may be those of variables that were never assigned: reading one is host code, which raises as Python does. A
run of host statements is held in `pending` until something that is not host code follows, then becomes one py.block.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..ir.builder import Builder
from ..ir.core import Op, Region, Value
from ..ir.private import mangled
from ..ir.syntax import walk
from ..ir.types import CELL, OBJ
from .leaving import Around
from .resolve import Callee, Resolver
from .scope import Scope, stored_names
from .source import Source, displayed, own_nodes

READ_METHODS = {"text", "messages", "get_var", "get_meta_info"}


@dataclass(slots=True)
class Lowering:
    """Everything that lowering one function needs to know. `request` names (and queues) a helper of the module.

    groups: whether host statements that follow each other become one py.block.
    """

    source: Source
    scope: Scope
    resolver: Resolver
    builder: Builder
    request: Callable[[Callee, frozenset[str]], str]
    on_eager: Callable[[ast.AST, str], None] = lambda node, reason: None
    groups: bool = True
    env: dict[str, Value] = field(default_factory=dict)
    boxes: dict[str, Value] = field(default_factory=dict)
    followed: dict[str, Value] = field(default_factory=dict)
    around: list[Around] = field(default_factory=list)
    pending: list[ast.stmt] = field(default_factory=list)
    unsure: set[Value] = field(default_factory=set)
    num_temporaries: int = 0
    num_groups: int = 0

    @contextmanager
    def at(self, *nodes: ast.AST) -> Iterator[None]:
        """Ops built inside carry the span of the node, or of several that follow each other."""
        outer, self.builder.span = self.builder.span, self.source.group_span(nodes)
        try:
            yield
        finally:
            self.builder.span = outer

    @contextmanager
    def region(self, region: Region) -> Iterator[None]:
        """Build into `region`; what is assigned inside is forgotten afterwards."""
        outer, self.env = self.env, dict(self.env)
        with self.builder.inside(region):
            yield
        self.env = outer

    @contextmanager
    def inner_names(self, names: set[str]) -> Iterator[None]:
        """Inside, `names` are plain variables of their own: those of a comprehension hide the function's."""
        outer = set(self.scope.locals), dict(self.env), dict(self.boxes), dict(self.followed)
        self.scope.locals |= names
        for name in names:
            for table in (self.env, self.boxes, self.followed):
                table.pop(name, None)
        yield
        self.scope.locals, self.env, self.boxes, self.followed = outer

    def read(self, name: str) -> Value:
        """The value of a local variable here; a cell when the name is a state."""
        if name in self.boxes:
            return self.builder.value("py.unbox", self.boxes[name], hint=name)
        value = self.lookup(name)
        if self.scope.kinds.get(name) == "state" and value.type != CELL and value not in self.unsure:
            value = self.env[name] = self.builder.value("cell.of", value, hint=name)
        return value

    def lookup(self, name: str) -> Value:
        """The value a plain local variable has here, which may be `py.unbound`."""
        if name in self.env:
            return self.env[name]
        shown = mangled(name, self.resolver.prefix)
        value = self.builder.value("py.unbound", name=shown, hint=name)
        self.unsure.add(value)
        return value

    def is_sure(self, name: str) -> bool:
        """Whether a plain local variable has certainly been assigned here."""
        return name in self.env and self.env[name] not in self.unsure

    def assign(self, name: str, value: Value) -> None:
        """Bind a local variable."""
        if name in self.boxes or name in self.scope.outer:
            own = self.own_name("__value")
            self.block_op(f"{name} = {own}", [ast.Name(name, ast.Store())], {own: value})
        else:
            self.env[name] = value
            if name in self.followed:
                self.builder.op("var.set", [self.followed[name], value])

    def delete(self, name: str) -> None:
        """Unbind a local variable, whether it is bound or not."""
        if name in self.boxes or name in self.scope.outer:
            nodes = ast.parse(f"{name} = None; del {name}").body
            self.block_op(f"{name} = None; del {name}", nodes, {})
        else:
            value = self.builder.value("py.unbound", name=name, hint=name)
            self.unsure.add(value)
            self.assign(name, value)

    def temporary(self) -> str:
        """A fresh name that no user variable has."""
        self.num_temporaries += 1
        return self.own_name(f"__t{self.num_temporaries}")

    def own_name(self, name: str) -> str:
        """The name, changed if need be to one that no user variable has."""
        while name in self.scope.locals:
            name += "_"
        return name

    def assigned(self, nodes: Sequence[ast.AST]) -> list[str]:
        """The plain local variables that the code may rebind. `s += ...` on a state changes it but rebinds nothing."""
        kept = [name for name in stored_names(*nodes) if name in self.scope.locals and name not in self.boxes]
        return [name for name in kept if not self._only_appended(name, nodes)]

    def _only_appended(self, name: str, nodes: Sequence[ast.AST]) -> bool:
        if self.scope.kinds.get(name) != "state":
            return False
        walked = [node for root in nodes for node in [root, *own_nodes(root)]]
        appended = {id(node.target) for node in walked if isinstance(node, ast.AugAssign)}
        stores = [node for node in walked if isinstance(node, ast.Name) and node.id == name]
        return all(isinstance(node.ctx, ast.Load) or id(node) in appended for node in stores)

    # Host ops.

    def expression_op(
        self,
        code: str,
        nodes: Sequence[ast.AST],
        temporaries: dict[str, Value],
        *,
        lazy: bool = False,
        pure: str | None = None,
    ) -> Value:
        """A py.expr over the local names in `nodes` and the temporaries."""
        inputs, operands, captures, reads = self._operands(nodes, temporaries)
        made = self.builder.op(
            "py.expr", operands, code=code, inputs=inputs, captures=captures or None, reads=reads or None,
            lazy=lazy or None, pure=pure,
        )  # fmt: skip
        return made.result

    def block_op(
        self, code: str, nodes: Sequence[ast.AST], temporaries: dict[str, Value], *, signals: bool = False
    ) -> Op:
        """A py.block over the local names in `nodes`; binds the variables that the code assigns."""
        outputs = self.assigned(nodes)
        surely = surely_assigned(nodes)
        unsure = {name for name in outputs if name not in surely and not self.is_sure(name)} | deleted_names(nodes)
        writes = [name for name in outputs if name in self.followed]
        inputs, operands, captures, reads = self._operands(nodes, temporaries, skip=surely.difference(writes))
        operands += [self.followed[name] for name in writes]
        outer = [name for name in stored_names(*nodes) if name in self.scope.outer]
        results = [OBJ] * (len(outputs) + (2 if signals else 0))
        made = self.builder.op(
            "py.block", operands, results=results, hints=outputs, code=code, inputs=inputs,
            captures=captures or None, reads=reads or None, writes=writes or None, outer=outer or None,
            outputs=outputs, signals=signals or None,
        )  # fmt: skip
        for name, value in zip(outputs, made.results[: len(outputs)], strict=True):
            self.env[name] = value
            if name in unsure:
                self.unsure.add(value)
        return made

    def _operands(
        self, nodes: Sequence[ast.AST], temporaries: dict[str, Value], skip: frozenset[str] = frozenset()
    ) -> tuple[list[str], list[Value], list[str], list[str]]:
        mentioned = {n.id for node in nodes for n in walk(node) if isinstance(n, ast.Name)}
        if "super" in mentioned:  # which looks at the first parameter by itself
            mentioned.add(self.resolver.first_parameter)
        names = (mentioned | set(stored_names(*nodes))) & self.scope.locals
        captures = sorted(names & self.boxes.keys())
        plain = sorted(names - self.boxes.keys() - skip)
        operands = [self.read(name) for name in plain]
        reads = [name for name in plain if self.scope.kinds.get(name) == "state" and _only_read(nodes, name)]
        return (
            [*plain, *temporaries],
            [*operands, *temporaries.values(), *(self.boxes[name] for name in captures)],
            captures,
            reads,
        )

    def flush(self) -> None:
        """Turn the host statements held back into one py.block."""
        if self.pending:
            statements, self.pending = self.pending, []
            with self.at(*statements):
                self.block_op(self.source.segment(statements), statements, {})


def lower_body(lowering: Lowering, body: list[ast.stmt], parameters: dict[str, Value]) -> None:
    """Lower a whole function body whose parameters have the given values; ends every path in flow.return."""
    from .statements import lower_block  # statements and this module use each other

    builder = lowering.builder
    builder.span = lowering.source.span(lowering.source.tree)
    for name in sorted(lowering.scope.boxed):
        first = parameters[name] if name in parameters else builder.value("py.unbound", name=name, hint=name)
        lowering.boxes[name] = builder.value("py.box", first, name=name, hint=name)
    lowering.env = {name: value for name, value in parameters.items() if name not in lowering.boxes}
    lower_block(lowering, body)
    if not builder.terminated:
        builder.op("flow.return", [builder.value("py.const", value=None)])


def _only_read(nodes: Sequence[ast.AST], name: str) -> bool:
    """Whether every mention of a state in the code reads it (`s["x"]`, `"x" in s`, `s.text()`), at once."""
    reading: set[int] = set()
    for root in nodes:
        for node in walk(root):
            match node:
                case ast.Subscript(value=ast.Name() as base, ctx=ast.Load()):
                    reading.add(id(base))
                case ast.Call(func=ast.Attribute(value=ast.Name() as base, attr=method)) if method in READ_METHODS:
                    reading.add(id(base))
                case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[ast.Name() as base]):
                    reading.add(id(base))
    mentions = [n for root in nodes for n in walk(root) if isinstance(n, ast.Name) and n.id == name]
    return all(id(node) in reading for node in mentions)


def surely_assigned(nodes: Sequence[ast.AST]) -> frozenset[str]:
    """Names whose first mention is a plain assignment at the top level: their old value is not needed."""
    sure: set[str] = set()
    seen: set[str] = set()
    for node in nodes:
        mentioned = {n.id for n in walk(node) if isinstance(n, ast.Name)}
        if isinstance(node, ast.Assign):
            used = {n.id for n in walk(node.value) if isinstance(n, ast.Name)}
            plain = {t.id for target in node.targets for t in displayed(target) if isinstance(t, ast.Name)}
            sure |= plain - used - seen
        seen |= mentioned
    return frozenset(sure)


def deleted_names(nodes: Sequence[ast.AST]) -> set[str]:
    """Names that a `del` or the end of an `except ... as` takes away."""
    return {name for root in nodes for node in [root, *own_nodes(root)] if (name := _deleted_by(node)) is not None}


def _deleted_by(node: ast.AST) -> str | None:
    match node:
        case ast.Name(id=name, ctx=ast.Del()) | ast.ExceptHandler(name=str(name)):
            return name
    return None
