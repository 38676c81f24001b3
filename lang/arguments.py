"""The arguments of a program: checked before anything runs, with errors that name what is missing or unknown."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from ..ir.errors import UsageError
from ..ir.span import Span
from ..runtime.expression import SAMPLING_NAMES
from .row_types import problem, row_types


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one call: what stands before the state (a method's receiver), and what follows it.

    args and kwargs are as a call takes them; values has one value for each parameter after the state, in order.
    """

    before: tuple[Any, ...]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    values: tuple[Any, ...]

    def call(self, function: Callable[..., Any], state: Any) -> Any:
        """Call the Python function itself."""
        return function(*self.before, state, *self.args, **self.kwargs)

    def with_state(self, state: Any) -> tuple[Any, ...]:
        """One value for each parameter of the function, in order."""
        return (*self.before, state, *self.values)


class Signature:
    """The parameters that a caller gives: all but the state, and but the receiver once a method is bound to one.

    is_method: whether the state is the second parameter. receiver: empty, or the object that the method is bound to.
    """

    def __init__(
        self, function: Callable[..., Any], *, is_method: bool = False, receiver: tuple[Any, ...] = ()
    ) -> None:
        self.name = function.__name__
        whole = inspect.signature(function)
        parameters = list(whole.parameters.values())
        position = 1 if is_method else 0
        first = parameters[: position + 1]
        if len(first) <= position or any(p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in first):
            raise UsageError(f"program {self.name} takes no state", span=definition(function), help=_HELP[is_method])
        self.state_name = parameters.pop(position).name
        self._receiver = receiver
        self._num_before = position - len(receiver)
        kept = parameters[len(receiver) :]
        self.parameters = {parameter.name: parameter for parameter in kept}
        self._signature = whole.replace(parameters=kept, return_annotation=whole.empty)
        collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        known = row_types(inspect.unwrap(function))
        self._row_types = {p.name: known[p.name] for p in kept if p.name in known and p.kind not in collecting}
        self._plain = all(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in kept)

    def __str__(self) -> str:
        return f"{self.name}{self._signature}"

    def given_state(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What a call gives for the state, if it gives anything."""
        return args[self._num_before] if len(args) > self._num_before else kwargs.get(self.state_name)

    def missing(self, given: Collection[str] = ()) -> list[str]:
        """The parameters that need a value, without those that are given."""
        return [p.name for p in self.parameters.values() if _is_required(p) and p.name not in given]

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], row: int | None = None) -> Arguments:
        """Match arguments to parameters. Raises UsageError that names the wrong ones, and the row if there is one.

        A row's values must be of the annotated types (row_types.py); for those of a single call Python's rules hold.
        """
        bound = self._bound(args, kwargs, row)
        if row is not None and self._row_types:
            self._check_types(bound, row)
        return bound

    def _check_types(self, bound: Arguments, row: int) -> None:
        values = zip(self.parameters, (*bound.before[len(self._receiver) :], *bound.values), strict=True)
        given = {name: value for name, value in values if value is not self.parameters[name].default}
        if (what := problem(given, self._row_types)) is not None:
            raise UsageError(f"{self.name}: {what} (row {row})", help=self._help({}))

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], row: int | None) -> Arguments:
        if self._plain and not kwargs and len(args) == len(self.parameters):
            return self._all_given(args)
        if self._plain and not args and kwargs.keys() == self.parameters.keys():
            return self._all_given(tuple(kwargs[name] for name in self.parameters))
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            where = "" if row is None else f" (row {row})"
            problem = self._problem(args, kwargs) or str(error)
            raise UsageError(f"{self.name}: {problem}{where}", help=self._help(kwargs)) from None
        given_args, given_kwargs = bound.args, bound.kwargs
        bound.apply_defaults()
        skip = self._num_before
        before, values = (*self._receiver, *given_args[:skip]), tuple(bound.arguments.values())
        return Arguments(before, given_args[skip:], given_kwargs, values[skip:])

    def again(self, before: Sequence[Any], values: Sequence[Any]) -> Arguments:
        """Arguments that were matched before, with other values: what stands before the state, and what follows it."""
        skip = self._num_before
        named = dict(zip(self.parameters, (*before[len(self._receiver) :], *values), strict=True))
        bound = inspect.BoundArguments(self._signature, named)
        return Arguments(tuple(before), bound.args[skip:], bound.kwargs, tuple(values))

    def _all_given(self, values: tuple[Any, ...]) -> Arguments:
        skip = self._num_before
        return Arguments((*self._receiver, *values[:skip]), values[skip:], {}, values[skip:])

    def _help(self, kwargs: Mapping[str, Any]) -> str:
        option = next((name for name in kwargs if name in SAMPLING_NAMES and name not in self.parameters), None)
        hint = "" if option is None else f"; set options first, with {self.name}.options({option}=...)"
        return f"its arguments are {self}{hint}"

    def _problem(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """All that is wrong in one line; empty when only Python's own words say it."""
        kinds = inspect.Parameter
        positional = [
            p.name for p in self.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        collecting = {p.kind for p in self.parameters.values()}
        given = {*positional[: len(args)], *kwargs}
        problems = []
        if missing := self.missing(given):
            problems.append(f"missing {_listed(missing)}")
        unknown = [name for name in kwargs if name not in self.parameters]
        if unknown and kinds.VAR_KEYWORD not in collecting:
            problems.append(f"unknown {_listed(unknown)}")
        if len(args) > len(positional) and kinds.VAR_POSITIONAL not in collecting:
            problems.append(f"{len(args)} positional arguments given, at most {len(positional)} taken")
        return "; ".join(problems)


def definition(function: Callable[..., Any]) -> Span | None:
    """Where a function is defined."""
    from ..compiler.source import def_span

    function = inspect.unwrap(function)
    return def_span(function) if isinstance(function, FunctionType) else None


_HELP = {
    False: "its first parameter is the state: def program(s, ...)",
    True: "the second parameter of a method is the state: def program(self, s, ...)",
}


def _is_required(parameter: inspect.Parameter) -> bool:
    collects = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not collects


def _listed(names: list[str]) -> str:
    return f"argument{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"
