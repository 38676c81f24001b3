"""`?NAME`: what a name stands for: of a program its parameters, what it generates and what it returns."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from ...ir.errors import RamifyError, UsageError, nearest
from ..loading import program_of
from ..outline import outline
from ..program import Program
from ..session import Session


def show_help(session: Session, name: str) -> None:
    """Write it. Raises UsageError for what is no name of the session."""
    value = _value_of(session, name)
    program = program_of(value)
    for line in _of_program(program) if program is not None else _of_value(name, value):
        session.print(line)


def _value_of(session: Session, name: str) -> Any:
    if not re.fullmatch(r"\w+(\.\w+)*", name):
        raise UsageError(f"{name!r} is no name", help="as in ?gen, or ?rf.gen; help(...) takes any value")
    first, *attributes = name.split(".")
    names = {**vars(builtins), **session.names}
    if first not in names:
        raise UsageError(f"there is no name {first!r}", help=nearest(first, names) or None)
    value = names[first]
    for attribute in attributes:
        if not hasattr(value, attribute):
            raise UsageError(f"{first} has no attribute {attribute!r}", help=nearest(attribute, dir(value)) or None)
        value = getattr(value, attribute)
        first = f"{first}.{attribute}"
    return value


def _of_program(program: Program) -> Iterator[str]:
    yield f"program {program.signature}"
    if doc := inspect.getdoc(program.fn):
        yield textwrap.indent(doc, "  ")
    if parameters := list(program.signature.parameters.values()):
        yield "parameters"
        yield from (f"  {parameter}{_requirement(parameter)}" for parameter in parameters)
    yield from _requests(program)
    yield from _returned(program)
    yield f"defined in {program.fn.__code__.co_filename}:{program.fn.__code__.co_firstlineno}"


def _requirement(parameter: inspect.Parameter) -> str:
    return "  (required)" if parameter.default is parameter.empty and parameter.kind < parameter.VAR_POSITIONAL else ""


def _requests(program: Program) -> Iterator[str]:
    """What it generates, as far as it compiles."""
    try:
        found = outline(program.lower().module)
    except RamifyError as error:
        yield f"does not compile: {error.message}"
        return
    if found:
        yield "asks the model for"
        yield from (f"  {each.kind} {each.name or ''}".rstrip() for each in found)


def _returned(program: Program) -> Iterator[str]:
    """The annotation, or else the expressions behind `return`."""
    annotation = inspect.signature(program.fn).return_annotation
    if annotation is not inspect.Signature.empty:
        yield f"returns {inspect.formatannotation(annotation)}"
        return
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(program.fn)))
    except (OSError, SyntaxError):
        return
    values = [node.value for node in _returns(tree.body[0]) if node.value is not None]
    yield f"returns {' or '.join(dict.fromkeys(map(ast.unparse, values)))}" if values else "returns nothing"


def _returns(node: ast.AST) -> Iterator[ast.Return]:
    """The return statements of a function, without those of functions inside of it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Return):
            yield child
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield from _returns(child)


def _of_value(name: str, value: Any) -> Iterator[str]:
    if inspect.ismodule(value):
        yield f"module {value.__name__}"
    elif callable(value):
        try:
            yield f"{name}{inspect.signature(value)}"
        except (TypeError, ValueError):
            yield name
    else:
        yield f"{name} = {value!r:.200}"
        yield f"of type {type(value).__qualname__}"
        return
    if doc := inspect.getdoc(value):
        yield textwrap.indent(doc, "  ")
