"""Turns the source text of a py.* op into a CPython function whose lines and columns are the user's own.

The function's parameters are the op's inputs; captured boxes and the variables of enclosing functions are CPython
cells. It returns an expression's value, a tuple of outputs, or its `locals()` where an output may be unassigned.
Code that awaits becomes a coroutine function.
With signals, a `return`, `break` or `continue` that leaves the block becomes `return (signal, value)`. With signals or
writes, the locals go into a dict that the caller passes, so that `finally` and `with` clauses have run by then, and
that they are known when the code raises.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import copy
import inspect
import linecache
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType
from typing import Any, Literal

from ..ir.core import Op
from ..ir.private import mangled, private_prefix, unmangled
from ..ir.span import Span
from ..ir.syntax import walk

Result = Literal["value", "tuple", "locals", "saved"]

_SCOPES = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp,
    ast.GeneratorExp,
)  # fmt: skip
_LOCALS, _OUT = "__ramify_locals__", "__ramify_out__"
_FUTURE_FLAGS = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
_LOCALS_CELL = CellType(builtins.locals)


@dataclass(frozen=True, slots=True)
class HostCode:
    """The parsed code of an op: an expression or statements, at the user's positions."""

    op: Op
    body: list[ast.stmt]
    span: Span
    awaits: bool

    @property
    def is_expression(self) -> bool:
        """Whether the op is a py.expr."""
        return self.op.name == "py.expr"

    @property
    def has_signals(self) -> bool:
        """Whether `return`, `break` and `continue` in the code leave more than the code."""
        return bool(self.op.attrs.get("signals"))

    @property
    def expression(self) -> ast.expr:
        """The expression of a py.expr."""
        (statement,) = self.body
        assert isinstance(statement, ast.Return) and statement.value is not None
        return statement.value

    def result(self, unbound: frozenset[str]) -> Result:
        """In what form the function gives its outputs when the inputs in `unbound` have no value."""
        if self.is_expression:
            return "value"
        if self.has_signals or self.op.attrs.get("writes"):
            return "saved"
        sure = set(self.op.attrs["inputs"]) - unbound | _assigned_at_top(self.body)
        return "tuple" if set(self.op.attrs["outputs"]) <= sure - _unassigned(self.body) else "locals"


def parse(op: Op) -> HostCode:
    """Parse the code of a py.expr or py.block. Raises SyntaxError for code that is neither."""
    span = op.span or Span("<ramify>", 1, 0, 1, 0)
    code: str = op.attrs["code"]
    if op.name == "py.expr":
        value = ast.parse(f"(\n{code}\n)", mode="eval").body
        body: list[ast.stmt] = [ast.Return(value, lineno=2, col_offset=0, end_lineno=2, end_col_offset=0)]
        first_line = 2
    else:
        indented = code[:1].isspace()
        module = ast.parse(f"if True:\n{code}" if indented else code)
        body = module.body[0].body if indented else module.body  # type: ignore[attr-defined]
        first_line = 2 if indented else 1
    _place(body, code, first_line, span)
    captures = frozenset(op.attrs.get("captures") or ())
    if captures:
        body = [_Unannotated(captures).visit(statement) for statement in body]
    return HostCode(op, body, span, any(map(_awaits, body)))


def _awaits(node: ast.AST) -> bool:
    """Whether the code awaits something itself, outside of the functions it defines."""
    if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith) or getattr(node, "is_async", False):
        return True
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
        return False
    return any(map(_awaits, ast.iter_child_nodes(node)))


class _Unannotated(ast.NodeTransformer):
    """Drops the annotations of captured variables: they are `nonlocal` here, and Python allows none on these."""

    def __init__(self, captures: frozenset[str]) -> None:
        self._captures = captures

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        if not isinstance(node.target, ast.Name) or node.target.id not in self._captures:
            return node
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], node.value), node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.stmt:
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.stmt:
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.stmt:
        return node


_STAND_IN = re.compile(r"(__t\d+_* *)")
_KEPT = re.compile(r"__t\d+_* = \(")  # before an expression whose value a block keeps


def _is_of(code: str, source: str) -> bool:
    """Whether the code is the beginning of the source, but for names that stand in for something as long."""
    parts = enumerate(_STAND_IN.split(code))
    pattern = "".join("." * len(part) if number % 2 else re.escape(part) for number, part in parts)
    return re.match(pattern, source) is not None


def _place(body: list[ast.stmt], code: str, first_line: int, span: Span) -> None:
    """Move the nodes to the user's lines and columns; rewritten code goes to the start of its span as a whole."""
    kept = _KEPT.match(code)
    before = kept.end() if kept else 0
    first = (code[before:-1] if kept else code).split("\n", 1)[0]
    line = linecache.getline(span.file, span.line)
    verbatim = _is_of(first.strip(), line[span.column :]) if line else True
    indent = len(first) - len(first.lstrip())
    down, right = span.line - first_line, len(line[: span.column].encode()) - indent
    for node in (node for statement in body for node in walk(statement)):
        if not hasattr(node, "lineno"):
            continue
        if verbatim:
            start = right - before * (node.lineno == first_line)
            end = right - before * (node.end_lineno == first_line)  # type: ignore[attr-defined]
            node.lineno += down
            node.end_lineno += down  # type: ignore[attr-defined]
            node.col_offset = max(0, node.col_offset + start)  # type: ignore[attr-defined]
            node.end_col_offset = max(0, node.end_col_offset + end)  # type: ignore[attr-defined]
        else:
            node.lineno, node.end_lineno = span.line, span.end_line  # type: ignore[attr-defined]
            node.col_offset, node.end_col_offset = span.column, span.end_column  # type: ignore[attr-defined]


def compile_host(host: HostCode, owner: FunctionType, unbound: frozenset[str], result: Result) -> CodeType:
    """The code object of the op's function; inputs in `unbound` are unassigned inside."""
    op = host.op
    inputs: Sequence[str] = op.attrs["inputs"]
    captures: Sequence[str] = op.attrs.get("captures") or ()
    parameters = [*inputs, _OUT] if result == "saved" else list(inputs)
    inner = _function("host", parameters, [], is_async=host.awaits)
    outside: Sequence[str] = op.attrs.get("outer") or ()
    inner.body = [
        *_declared(outside, owner),
        *_prologue(captures, [name for name in inputs if name in unbound]),
        *_ending(host, result),
    ]
    prefix = private_prefix(owner.__qualname__)
    if "__class__" in owner.__code__.co_freevars:
        _spell_out_super(inner, unmangled(owner.__code__.co_varnames[0], prefix))
    outer = _function("maker", list(dict.fromkeys([*captures, *owner.__code__.co_freevars, _LOCALS])), [inner])
    # Inside a class, private names mean what they mean in the owner.
    module = ast.Module([ast.ClassDef(prefix, [], [], [outer], [])] if prefix else [outer], [])
    _locate(module, host.span)
    flags = owner.__code__.co_flags & _FUTURE_FLAGS
    compiled = compile(module, host.span.file, "exec", flags=flags, dont_inherit=True)
    code = _nested(_nested(_nested(compiled, prefix) if prefix else compiled, "maker"), "host")
    return _renamed(code, code.co_qualname, owner.__qualname__).replace(co_name=owner.__name__)


def _spell_out_super(node: ast.AST, first: str) -> None:
    """Give `super()` the arguments that it would find by itself in the user's own function."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Call(func=ast.Name(id="super"), args=[], keywords=[]):
                child.args = [ast.copy_location(ast.Name(name, ast.Load()), child) for name in ("__class__", first)]
        if not isinstance(child, _SCOPES):
            _spell_out_super(child, first)


def _renamed(code: CodeType, old: str, new: str) -> CodeType:
    """The code with the qualified names that it and the code inside it would have in the user's function."""
    name = new + code.co_qualname.removeprefix(old)
    is_class_body = not code.co_flags & inspect.CO_OPTIMIZED
    constants = tuple(
        _renamed(each, old, new)
        if isinstance(each, CodeType)
        else name  # what the class stores as its __qualname__
        if is_class_body and each == code.co_qualname
        else each
        for each in code.co_consts
    )
    return code.replace(co_qualname=name, co_consts=constants)


def cell_of_free_variable(owner: FunctionType, name: str) -> CellType:
    """The cell that a free variable of host code lives in, if it is no capture."""
    if name == _LOCALS:
        return _LOCALS_CELL
    assert owner.__closure__ is not None
    return owner.__closure__[owner.__code__.co_freevars.index(name)]


def _declared(names: Sequence[str], owner: FunctionType) -> list[ast.stmt]:
    prefix, free = private_prefix(owner.__qualname__), owner.__code__.co_freevars
    nonlocals = [name for name in names if mangled(name, prefix) in free]
    globals_ = [name for name in names if name not in nonlocals]
    return [ast.Nonlocal(nonlocals)] * bool(nonlocals) + [ast.Global(globals_)] * bool(globals_)


def _prologue(captures: Sequence[str], unbound: Sequence[str]) -> list[ast.stmt]:
    statements: list[ast.stmt] = [ast.Nonlocal(list(captures))] if captures else []
    if unbound:
        statements.append(ast.Delete([ast.Name(name, ast.Del()) for name in unbound]))
    return statements


def _ending(host: HostCode, result: Result) -> list[ast.stmt]:
    """The op's statements with what returns its outputs."""
    if result == "value":
        return host.body
    if result == "tuple":
        outputs: ast.expr = ast.Tuple([ast.Name(name, ast.Load()) for name in host.op.attrs["outputs"]], ast.Load())
        return [*host.body, ast.Return(outputs)]
    if result == "locals":
        return [*host.body, ast.Return(_locals())]
    leaving = [_Leaving().visit(statement) for statement in copy.deepcopy(host.body)]
    save = ast.Expr(ast.Call(ast.Attribute(ast.Name(_OUT, ast.Load()), "update", ast.Load()), [_locals()], []))
    return [ast.Try([*leaving, _signal(None, None)], [], [], [save])]


def _locals() -> ast.Call:
    return ast.Call(ast.Name(_LOCALS, ast.Load()), [], [])


def _signal(kind: str | None, value: ast.expr | None) -> ast.Return:
    return ast.Return(ast.Tuple([ast.Constant(kind), value or ast.Constant(None)], ast.Load()))


class _Leaving(ast.NodeTransformer):
    """Turns the statements that leave the block into returns of a signal; inner functions keep their own."""

    def __init__(self) -> None:
        self._loops = 0

    def visit_Return(self, node: ast.Return) -> ast.stmt:
        return ast.copy_location(_signal("return", node.value), node)

    def visit_Break(self, node: ast.Break) -> ast.stmt:
        return node if self._loops else ast.copy_location(_signal("break", None), node)

    def visit_Continue(self, node: ast.Continue) -> ast.stmt:
        return node if self._loops else ast.copy_location(_signal("continue", None), node)

    def visit_For(self, node: ast.For) -> ast.stmt:
        return self._loop(node)

    def visit_While(self, node: ast.While) -> ast.stmt:
        return self._loop(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.stmt:
        return self._loop(node)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> ast.stmt:
        self._loops += 1
        node.body = [self.visit(statement) for statement in node.body]
        self._loops -= 1
        node.orelse = [self.visit(statement) for statement in node.orelse]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.stmt:
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.stmt:
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.stmt:
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.expr:
        return node


def _function(name: str, parameters: Sequence[str], body: list[ast.stmt], *, is_async: bool = False) -> Any:
    arguments = ast.arguments([], [ast.arg(parameter) for parameter in parameters], None, [], [], None, [])
    return (ast.AsyncFunctionDef if is_async else ast.FunctionDef)(name, arguments, body, [])


def _locate(module: ast.Module, span: Span) -> None:
    """Give nodes of our own making the place of the op."""
    for node in walk(module):
        if "lineno" in node._attributes and not hasattr(node, "lineno"):
            node.lineno = node.end_lineno = span.line  # type: ignore[attr-defined]
            node.col_offset = node.end_col_offset = 0  # type: ignore[attr-defined]


def _nested(code: CodeType, name: str) -> CodeType:
    return next(constant for constant in code.co_consts if isinstance(constant, CodeType) and constant.co_name == name)


def _assigned_at_top(body: list[ast.stmt]) -> set[str]:
    """Names that have a value for certain after the statements."""
    names: set[str] = set()
    for statement in body:
        match statement:
            case ast.Assign(targets=targets):
                names |= {name for target in targets for name in _stored(target)}
            case ast.AugAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
                names.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
    return names


def _stored(target: ast.expr) -> set[str]:
    return {node.id for node in walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _unassigned(body: list[ast.stmt]) -> set[str]:
    """Names that a `del` or the end of an `except ... as` may take away."""
    names: set[str] = set()
    for node in (node for statement in body for node in walk(statement)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del):
            names.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names
