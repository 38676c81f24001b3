"""How much an unsigned program may do: at most so many ops, counted before it runs.

Such a program runs on the loop that all runs share, so one that turns for ever would hold up everybody. What has no
bound (`while`, functions that call themselves) is refused; a loop counts as many times as the longest value has items.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...ir.core import Module, Op, Region
from .errors import ApiError, invalid

MOST_OPS = 500_000
_HELP = "have it signed with a key of the server (--program-key)"


def check_bounded(module: Module, arguments: dict[str, Any], generated: int) -> None:
    """Raises ApiError for a program without a bound, or with one that is too high.

    generated: how many characters a generated text may have that is looped over.
    """
    values = [*_values(arguments), *_values(module.constants)]
    values += [each for op in module.walk() for each in _values(op.attrs)]
    lengths = [len(each) for each in values if isinstance(each, str | list | dict)]
    counts = [each for each in values if type(each) is int]
    ops = _Counting(module, max([generated, *lengths]), max([1, *counts])).function(module.entry)
    if ops > MOST_OPS:
        raise invalid(
            f"an unsigned program may do {MOST_OPS:,} steps, and this one might do {ops:,}: {_HELP}, or loop over less",
            "module",
        )


def _values(value: Any) -> Iterator[Any]:
    """A JSON value and all that is in it."""
    todo = [value]
    while todo:
        each = todo.pop()
        yield each
        if isinstance(each, dict):
            todo += each.values()
        elif isinstance(each, list):
            todo += each


class _Counting:
    """Counts ops. longest: how often a loop may turn. largest: how many branches a fork, or samples a gen, may have."""

    def __init__(self, module: Module, longest: int, largest: int) -> None:
        self._module = module
        self._longest = longest
        self._largest = largest
        self._known: dict[str, int] = {}
        self._open: set[str] = set()

    def function(self, name: str) -> int:
        """The most ops that a call of a function does. Raises ApiError."""
        if name in self._open:
            raise _unbounded(f"the function {name} calls itself")
        if name not in self._known:
            self._open.add(name)
            self._known[name] = self._region(self._module.functions[name].body)
            self._open.remove(name)
        return self._known[name]

    def _region(self, region: Region) -> int:
        return sum(map(self._op, region.ops))

    def _op(self, op: Op) -> int:
        inner = sum(map(self._region, op.regions))
        match op.name:
            case "flow.while":
                raise _unbounded("it has a `while`")
            case "flow.for":
                return 1 + self._longest * inner
            case "flow.call":
                return 1 + self.function(op.attrs["callee"])
            case "prompt.fork":
                return 1 + self._largest
            case "lm.gen" if "n" in (*op.attrs.get("params", ()), *op.attrs.get("dynamic", ())):
                return 1 + self._largest
        return 1 + inner


def _unbounded(what: str) -> ApiError:
    return invalid(f"an unsigned program has to end by itself, and this one need not: {what}; {_HELP}", "module")
