"""Pass `inline`: small functions of the module, and those that are called once, take the place of their calls.

So the passes behind it see through calls: a state that is handed to a helper need not escape, texts of caller and
callee become one, and it is seen whether a program goes on from what its helper has generated. The ops keep where they
come from (`Op.inlined`): host code sees its own function's globals; errors name it, and each call on the way.

Left as they are: recursive functions; functions with a try (an exception that is caught there has not come further, its
traceback says so) or a return in a loop; what runs as Python; calls that only the run can match to the parameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..ir.core import Function, Inlined, Module, Op, Region, Value, clone_region
from ..ir.types import OBJ
from .rewrite import closure, regions, replace_uses

MOST_OPS = 40
"""Functions with more ops are inlined only where they are called once."""

# Ops whose results may stand for variables that were not assigned.
_UNSURE = {"py.unbound", "py.block", "var.get", "flow.if", "flow.for", "flow.while"}


def inline(module: Module) -> None:
    """Replace calls by the ops of what they call, in place, and drop functions that nothing calls any more."""
    num_calls = Counter(op.attrs["callee"] for op in module.walk() if op.name == "flow.call")
    bodies: dict[str, Function] = {}
    for name in _callees_first(module):
        function = module.functions[name]
        _inline_calls(function, bodies)
        is_small = num_calls[name] == 1 or sum(1 for _ in function.body.walk()) <= MOST_OPS
        if is_small and name != module.entry and name not in _reached(module, _calls(function)):
            body = _inlinable(function)
            if body is not None:
                bodies[name] = body
    used = _reached(module, [module.entry])
    module.functions = {name: function for name, function in module.functions.items() if name in used}


def _calls(function: Function) -> list[str]:
    return [op.attrs["callee"] for op in function.body.walk() if op.name in ("flow.call", "py.call")]


def _reached(module: Module, names: Iterable[str]) -> set[str]:
    """These functions, those that they call, and so on."""
    return closure(names, lambda name: _calls(module.functions[name]))


def _callees_first(module: Module) -> Iterator[str]:
    """All functions, each behind those that it calls as far as that can be."""
    begun: set[str] = set()
    todo = [(name, False) for name in reversed(module.functions)]
    while todo:
        name, is_over = todo.pop()
        if is_over:
            yield name
        elif name not in begun:
            begun.add(name)
            todo += [(name, True), *((callee, False) for callee in _calls(module.functions[name]))]


def _inlinable(function: Function) -> Function | None:
    """A copy of a function that returns at its end only; None if it cannot be inlined."""
    if any(op.name in ("flow.try", "py.call") for op in function.body.walk()):
        return None
    body = clone_region(function.body, {})
    _check_returned(body)
    return Function(function.name, body, function.param_names) if _return_at_end(body) else None


def _check_returned(body: Region) -> None:
    """Have it checked that what is returned is assigned, as returning does."""
    unsure = _unsure_values(body)
    for region in regions(body):
        last = region.ops[-1]
        if last.name == "flow.return" and last.operands[0] in unsure:
            region.ops.insert(-1, Op("py.bound", list(last.operands), span=last.span, inlined=last.inlined))


def _unsure_values(body: Region) -> set[Value]:
    """The values of a function that may stand for a variable that was not assigned."""
    unsure = {value for op in body.walk() if op.name in _UNSURE for value in op.results}
    for op in body.walk():
        if op.name in ("flow.for", "flow.while"):
            unsure.update(arg for region in op.regions for arg in region.args)
    return unsure


def _return_at_end(region: Region) -> bool:
    """Rewrite a region so that it returns in its last op only. False if it cannot be: for returns in loops, and where
    what follows a branch would be needed twice.
    """
    for index, op in enumerate(region.ops):
        if not any(inner.name == "flow.return" for inside in op.regions for inner in inside.walk()):
            continue
        going_on = [inside for inside in op.regions if inside.ops[-1].name == "flow.yield"]
        if op.name != "flow.if" or len(going_on) > 1:
            return False
        rest = Region([], region.ops[index + 1 :])
        for inside in going_on:
            for result, value in zip(op.results, inside.ops.pop().operands, strict=True):
                replace_uses(rest, result, value)
            inside.ops += rest.ops
        if not all(_return_at_end(inside) for inside in op.regions):
            return False
        for inside in op.regions:
            inside.ops[-1].name = "flow.yield"
        op.results = [Value(OBJ)]
        region.ops[index + 1 :] = [Op("flow.return", list(op.results), span=op.span, inlined=op.inlined)]
        break
    return region.ops[-1].name == "flow.return"


def _inline_calls(caller: Function, bodies: Mapping[str, Function]) -> None:
    if any(name in bodies for name in _calls(caller)):
        _Inlining(bodies, _unsure_values(caller.body)).region(caller.body)


@dataclass(slots=True)
class _Inlining:
    """Replaces calls in one function. known: what stands for the results of calls. unsure: values that may not be."""

    bodies: Mapping[str, Function]
    unsure: set[Value]
    known: dict[Value, Value] = field(default_factory=dict)

    def region(self, region: Region) -> None:
        ops: list[Op] = []
        for op in region.ops:
            op.operands = [self.known.get(value, value) for value in op.operands]
            if op.name == "flow.call" and op.attrs.get("direct") and op.attrs["callee"] in self.bodies:
                ops += self._expanded(op, self.bodies[op.attrs["callee"]])
                continue
            for inside in op.regions:
                self.region(inside)
            ops.append(op)
        region.ops = ops

    def _expanded(self, call: Op, callee: Function) -> list[Op]:
        """The ops that take the place of a call."""
        before, given = self._arguments(call, callee)
        body = clone_region(Region([], callee.body.ops), dict(zip(callee.body.args, given, strict=True)))
        around = (Inlined(callee.name, call.span), *call.inlined)
        for op in body.walk():
            op.inlined = (*op.inlined, *around)
        (self.known[call.result],) = body.ops.pop().operands
        return [*before, *body.ops]

    def _arguments(self, call: Op, callee: Function) -> tuple[list[Op], list[Value]]:
        """What each parameter holds, and the ops that check arguments and make defaults."""
        keywords = call.attrs.get("keywords", [])
        positional = callee.param_names[: len(call.operands) - len(keywords)]
        given = dict(zip([*positional, *keywords], call.operands, strict=True))
        ops = [Op("py.bound", [value]) for value in call.operands if value in self.unsure]
        for name in callee.param_names:
            if name not in given:
                ops.append(Op("py.default", [], [Value(OBJ, name)], {"callee": callee.name, "name": name}))
                given[name] = ops[-1].result
        for op in ops:
            op.span, op.inlined = call.span, call.inlined
        return ops, [given[name] for name in callee.param_names]
