"""Constraints of generations that are known before anything runs are checked then: a regex, a schema, a grammar.

Known are constants in the program, and global names of texts, schemas and types (what a name means when the program is
compiled). A constraint in a `try` is left to the run, since its error may be handled there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any

from ..compiler.resolve import MISSING, look_up
from ..ir.core import Module, Op, Region, Value
from ..ir.errors import ArgumentError, RamifyError, RequestError
from ..runtime.constraint import take_constraint
from ..runtime.expression import take_schema

_NAMES = ("regex", "json_schema", "grammar", "schema", "tools", "num_calls")


def check_constraints(module: Module, python: Mapping[str, FunctionType], *, with_files: bool = False) -> None:
    """Raises RequestError (ArgumentError for a wrong type), with the user's line, for the first that cannot be kept.

    python: the function that each one of the module comes from. with_files: whether grammars in files are known, too.
    """
    for name, function in module.functions.items():
        known = Known(python, name)
        for op in _outside_of_tries(function.body):
            known.note(op)
            if op.name == "lm.gen":
                _check(op, known.arguments(op), with_files=with_files)


def _outside_of_tries(region: Region) -> Iterator[Op]:
    for op in region.ops:
        yield op
        for inner in op.regions if op.name != "flow.try" else ():
            yield from _outside_of_tries(inner)


class Known:
    """What values of a function are known."""

    def __init__(self, python: Mapping[str, FunctionType], name: str) -> None:
        self._python = python
        self._name = name
        self._values: dict[Value, Any] = {}

    def note(self, op: Op) -> None:
        if op.name == "py.expr" and not op.operands:
            home = self._python[op.inlined[0].callee if op.inlined else self._name]
            value = _named(op.attrs["code"], home)
            if value is not MISSING:
                self._values[op.result] = value

    def arguments(self, op: Op) -> dict[str, Any]:
        """What is known of a gen's constraint."""
        found, _ = self.given(op)
        if "tools" not in found:
            found.pop("num_calls", None)  # says nothing alone
        return {name: value for name, value in found.items() if name in _NAMES}

    def given(self, op: Op) -> tuple[dict[str, Any], set[str]]:
        """The arguments of a request that are known, and the names of the others that are given."""
        dynamic = op.attrs.get("dynamic", [])
        given = dict(zip(dynamic, op.operands[len(op.operands) - len(dynamic) :], strict=True))
        given.pop("call", None)
        found = {name: self._values[value] for name, value in given.items() if value in self._values}
        found |= op.attrs.get("params", {})
        return {name: value for name, value in found.items() if value is not None}, given.keys() - found.keys()


def _named(code: str, home: FunctionType) -> Any:
    """What code means that is only a name from outside, perhaps with attributes."""
    node, path = ast.parse(f"(\n{code}\n)", mode="eval").body, list[str]()
    while isinstance(node, ast.Attribute):
        path.insert(0, node.attr)
        node = node.value
    return look_up(home, (node.id, *path)) if isinstance(node, ast.Name) else MISSING


def _check(op: Op, given: dict[str, Any], *, with_files: bool) -> None:
    try:
        schema = take_schema(given)
        if schema is not None:
            schema.constraint.check()
        elif with_files or not str(given.get("grammar", "")).endswith(".lark"):
            constraint = take_constraint(dict(given))
            if constraint is not None:
                constraint.check()
    except RamifyError as error:
        error.span = op.span
        raise
    except TypeError as error:
        raise ArgumentError(str(error), span=op.span) from None
    except ValueError as error:
        raise RequestError(str(error), span=op.span) from None
