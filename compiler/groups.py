"""Refuses generations inside of `unordered()` before anything runs, as far as they can be seen.

What the model gives depends on the order of what stands before it; so the run refuses them, too (Prompt.items).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from ..ir.core import Module, Op, Region, Value
from ..ir.errors import order_matters
from .asking import MODEL_OPS
from .dce import fixed, terminators
from .rewrite import closure

_Sources = Mapping[Value, list[Value]]


def check_groups(module: Module) -> None:
    """Raises UsageError, with the user's line, for a request inside of a group (in a `try` it is the run's affair)."""
    for function in module.functions.values():
        asking = {op.result: op for op in function.body.walk() if op.name in MODEL_OPS}
        groups = [op for op in _outside_of_tries(function.body) if op.name == "prompt.group"]
        sources = _sources(function.body) if groups and asking else {}
        for group in groups:
            end, start = group.operands
            inside = _between(end, start, sources)
            for result, op in asking.items():
                if result in inside:
                    raise order_matters(op.name.removeprefix("lm."), op.span)


def _outside_of_tries(region: Region) -> Iterator[Op]:
    for op in region.ops:
        yield op
        for inner in op.regions if op.name != "flow.try" else ():
            yield from _outside_of_tries(inner)


def _between(end: Value, start: Value, sources: _Sources) -> set[Value]:
    """The prompts on the way from the beginning of a group to its end."""
    return closure([end], lambda value: () if value is start else sources.get(value, ())) - {start}


def _sources(body: Region) -> _Sources:
    """The prompts that each prompt was made of, or stands for."""
    found: dict[Value, list[Value]] = defaultdict(list)
    for op in body.walk():
        if op.results and op.operands and op.name.startswith(("lm.", "prompt.")):
            found[op.result].append(op.operands[0])
        elif op.name in ("flow.if", "flow.for", "flow.while"):
            for source, target in _passed_on(op):
                found[target].append(source)
    return found


def _passed_on(op: Op) -> Iterator[tuple[Value, Value]]:
    """What a branch or loop passes on: values, and the results and arguments that they become."""
    num = len(op.results)
    arguments = [region.args[len(region.args) - num :] for region in op.regions] if op.name != "flow.if" else []
    for end in terminators(op):
        values = end.operands[fixed(end) :]
        for target in [op.results, *(arguments if end.name != "flow.break" else ())]:
            yield from zip(values, target, strict=True)
    for target in [op.results, *arguments] if arguments else []:
        yield from zip(op.operands[len(op.operands) - num :], target, strict=True)
