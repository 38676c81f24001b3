"""The arguments of a program: checked before anything runs, with errors that name what is missing or unknown."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..ir.errors import UsageError


@dataclass(frozen=True, slots=True)
class Arguments:
    """A program's arguments after the state: as a call takes them, and one value for each parameter, in order."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    values: tuple[Any, ...]


class Signature:
    """The parameters of a program after its state."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = function.__name__
        whole = inspect.signature(function)
        first, *rest = whole.parameters.values() if whole.parameters else (None,)
        if first is None or first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
            raise UsageError(
                f"program {self.name} takes no state", help="its first parameter is the state: def program(s, ...)"
            )
        self.parameters = {parameter.name: parameter for parameter in rest}
        self._signature = whole.replace(parameters=rest, return_annotation=whole.empty)
        self._plain = all(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in rest)

    def __str__(self) -> str:
        return f"{self.name}{self._signature}"

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], row: int | None = None) -> Arguments:
        """Match arguments to parameters. Raises UsageError that names the wrong ones, and the row if there is one."""
        if self._plain and not kwargs and len(args) == len(self.parameters):
            return Arguments(args, {}, args)
        if self._plain and not args and kwargs.keys() == self.parameters.keys():
            values = tuple(kwargs[name] for name in self.parameters)
            return Arguments(values, {}, values)
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            where = "" if row is None else f" (row {row})"
            problem = self._problem(args, kwargs) or str(error)
            raise UsageError(f"{self.name}: {problem}{where}", help=f"its arguments are {self}") from None
        given_args, given_kwargs = bound.args, bound.kwargs
        bound.apply_defaults()
        return Arguments(given_args, given_kwargs, tuple(bound.arguments.values()))

    def _problem(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """All that is wrong in one line; empty when only Python's own words say it."""
        kinds = inspect.Parameter
        positional = [
            p.name for p in self.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        collecting = {p.kind for p in self.parameters.values()}
        given = {*positional[: len(args)], *kwargs}
        problems = []
        if missing := [p.name for p in self.parameters.values() if _is_required(p) and p.name not in given]:
            problems.append(f"missing {_listed(missing)}")
        unknown = [name for name in kwargs if name not in self.parameters]
        if unknown and kinds.VAR_KEYWORD not in collecting:
            problems.append(f"unknown {_listed(unknown)}")
        if len(args) > len(positional) and kinds.VAR_POSITIONAL not in collecting:
            problems.append(f"{len(args)} positional arguments given, at most {len(positional)} taken")
        return "; ".join(problems)


def _is_required(parameter: inspect.Parameter) -> bool:
    collects = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not collects


def _listed(names: list[str]) -> str:
    return f"argument{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"
