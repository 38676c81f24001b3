"""Pass `lifetimes`: which generations and choices the program goes on from, so that their KV is kept (runtime/uses.py).

An append of what host code has made may be of a generation, too (compiler/asking.py).

Prompts are followed through appends, branches, carried values and cells, whatever the order in which these happen. An
op whose result a later op of the model may begin with gets `keep = True`; so does one whose result is forked or goes
where nobody sees (a state that a helper or host code holds). All others get `keep = False`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from ..ir.core import Function, Module, Op, Value
from ..ir.types import PROMPT
from .asking import MODEL_OPS, definitions, may_ask
from .promote import escapes
from .rewrite import closure

_GROWING = {"prompt.append", "prompt.role", "prompt.group", "prompt.image", "prompt.video", "prompt.bind"}
_GROWING |= {"prompt.branch", "lm.score"}
_READING = {"prompt.get", "prompt.text", "prompt.since", "prompt.messages"}
_HINTS = {"hint.warm"}
_LOOPS = {"flow.for": 1, "flow.while": 0}


def lifetimes(module: Module) -> None:
    """Mark the generations and choices of a module, in place."""
    called = {op.attrs["callee"] for op in module.walk() if op.name in ("flow.call", "py.call")}
    defined = definitions(module)
    for function in module.functions.values():
        asking = [op for op in function.body.walk() if may_ask(op, defined)]
        flow = _Flow(function, asking, is_entry=function.name == module.entry and function.name not in called)
        used = flow.back_from([*flow.used, *flow.lost])
        for op in asking:
            if op.name != "lm.score":
                op.attrs = op.attrs | {"keep": op.result in used}


class _Flow:
    """Where a function's prompts go. used: what an op of the model begins with. lost: what goes where nobody sees."""

    def __init__(self, function: Function, asking: list[Op], *, is_entry: bool) -> None:
        self.used = [op.operands[0] for op in asking]
        self.lost: list[Value] = []
        self._function = function
        self._is_entry = is_entry
        self._sources: dict[Value, list[Value]] = defaultdict(list)
        self._loads: dict[Value, list[Value]] = defaultdict(list)
        self._forked: set[Value] = set()
        self._find_loads()
        for op in function.body.walk():
            self._follow(op)

    def back_from(self, values: Iterable[Value]) -> set[Value]:
        """All prompts that may become one of these."""
        return closure(values, lambda value: self._sources[value])

    def _find_loads(self) -> None:
        """The loads and forks of each cell, but not those that happen before anything is stored to it."""
        stored: set[Value] = set()
        for op in self._function.body.ops:
            inside = [op, *(inner for region in op.regions for inner in region.walk())]
            stored |= {each.operands[0] for each in inside if each.name == "cell.store"}
            for each in inside:
                if each.name == "cell.load" and (
                    each.operands[0] in stored or not self._is_parameter(each.operands[0])
                ):
                    self._loads[each.operands[0]].append(each.result)
                elif each.name == "prompt.fork":
                    self._forked.add(each.operands[0])

    def _is_parameter(self, cell: Value) -> bool:
        return cell in self._function.body.args

    def _follow(self, op: Op) -> None:
        if op.name == "prompt.fork":
            self.used.append(op.operands[0])
        if op.name in _GROWING:
            self._flows(op.operands[:1], op.results)
        elif op.name in ("cell.store", "cell.new"):
            self._stored(*(op.operands if op.name == "cell.store" else (op.result, op.operands[0])))
        elif op.name in _LOOPS:
            self._loop(op)
        elif op.name == "flow.if":
            for region in op.regions:
                if region.ops[-1].name == "flow.yield":
                    self._flows(region.ops[-1].operands, op.results)
        elif op.name not in _READING | _HINTS and op.name not in MODEL_OPS and op.name not in _PASSING:
            self.lost += self._given_away(op)

    def _given_away(self, op: Op) -> Iterator[Value]:
        """The prompts that an op hands to code which may do anything with them."""
        if op.name == "flow.return" and self._is_entry:
            return
        reads, inputs = op.attrs.get("reads", ()), op.attrs.get("inputs", ())
        for index, value in enumerate(op.operands):
            if value.type == PROMPT and not (index < len(inputs) and inputs[index] in reads):
                yield value

    def _stored(self, cell: Value, prompt: Value) -> None:
        for load in self._loads[cell]:
            self._sources[load].append(prompt)
        if cell in self._forked:
            self.used.append(prompt)
        is_own = self._is_entry and self._is_parameter(cell)
        is_new = any(op.name == "cell.new" and op.result is cell for op in self._function.body.walk())
        if not (is_own or is_new) or escapes(self._function.body, cell):
            self.lost.append(prompt)

    def _loop(self, op: Op) -> None:
        first = _LOOPS[op.name]
        heads = [region.args[first:] for region in op.regions]
        for target in (heads[0], op.results):
            self._flows(op.operands[first:], target)
        for end in _ends(op):
            carried = end.operands[1:] if end.name == "flow.condition" else end.operands
            for target in (*heads, op.results):
                self._flows(carried, target)

    def _flows(self, sources: list[Value], targets: list[Value]) -> None:
        for source, target in zip(sources, targets, strict=True):
            self._sources[target].append(source)


# Their values are followed where the op around them is.
_PASSING = {"flow.yield", "flow.condition", "flow.break", "flow.continue", "cell.load", "prompt.fork"}


def _ends(loop: Op) -> Iterator[Op]:
    """The ops that pass on a loop's carried values."""
    for region in loop.regions:
        if region.ops[-1].name in ("flow.yield", "flow.condition"):
            yield region.ops[-1]
        yield from _leaving(region.ops)


def _leaving(ops: list[Op]) -> Iterator[Op]:
    for op in ops:
        if op.name in ("flow.break", "flow.continue"):
            yield op
        elif op.name == "flow.if":
            for region in op.regions:
                yield from _leaving(region.ops)
