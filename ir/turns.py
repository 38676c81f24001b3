"""Which ops of a loop's turn need not end before the next turn begins: what is put off by the pass `parallelize`.

The first ops of a turn run as ever, one turn behind the other; the rest of it may go on by itself. So whatever two
turns could see of one another without host code stands among the first: stores to states, branches of prompts that
others branch too (their numbers decide what a seeded run draws), shared variables, and what leaves the loop. Host code
keeps its order in any case (runtime/order.py). Later passes may change a loop, so it is looked at anew when it is
linked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from .core import Module, Op, Region, Value
from .types import CELL, PROMPT

_SHARING = {
    "cell.of", "prompt.fork", "py.box", "py.unbox", "py.call", "flow.invoke", "flow.return", "flow.break", "flow.leave",
}  # fmt: skip
_ON_ITS_OWN = {"prompt.branch", "prompt.get", "prompt.messages", "cell.new", "cell.load", "cell.store"}
_ENDS = {"flow.yield", "flow.condition", "flow.break", "flow.continue"}
_WAITING = {"flow.if", "flow.for", "flow.while", "flow.try", "flow.call"}
_CELLS_STAY_IN = {"cell.load", "cell.store", "flow.call"}


def keeps_states(module: Module) -> bool:
    """Whether no host code and no other program gets hold of a state of the module, but those of the run's caller."""
    return not any(map(_lets_out_a_cell, module.walk()))


def _lets_out_a_cell(op: Op) -> bool:
    """Whether host code, or another program, may get hold of a state here."""
    if op.name in _CELLS_STAY_IN:
        return False
    if op.name in ("prompt.fork", "cell.of"):
        return True
    read = op.attrs.get("reads", ())
    inputs = op.attrs.get("inputs", ())
    return any(
        operand.type == CELL and not (index < len(inputs) and inputs[index] in read)
        for index, operand in enumerate(op.operands)
    )


def split_turn(body: Region) -> tuple[int, list[int]] | None:
    """How many ops of a loop's body run in order with those of other turns, and which of the values that a turn passes
    on are known only when the rest has run; None if the rest never waits, or others would see it.
    """
    *ops, last = body.ops
    shared = _shared_states(body)
    first = 0
    while (ordered := _last_ordered(ops[first:], shared)) is not None:
        first += ordered + 1
    rest = ops[first:]
    if last.name not in ("flow.yield", "flow.continue") or not any(map(_may_wait, rest)):
        return None
    ends = [last, *own_ends(rest)]  # no flow.break, which is ordered
    late = _late(ends, made_by(rest))
    passed = {value for end in ends for value in end.operands if is_state(value)}
    return (
        None if passed & made_by(ops) or any(ends[0].operands[number] in passed for number in late) else (first, late)
    )


def _last_ordered(ops: list[Op], shared: set[Value]) -> int | None:
    """The index of the last op that has to run in order with those of other turns."""
    own = made_by(ops)
    for index in range(len(ops) - 1, -1, -1):
        if any(_is_ordered(op, shared, own) for op in inside(ops[index])):
            return index
    return None


def _may_wait(op: Op) -> bool:
    return op.name in _WAITING or (op.name in ("py.expr", "py.block") and not op.attrs.get("ahead"))


def _late(ends: list[Op], made: Collection[Value]) -> list[int]:
    """Which of the values that a turn passes on are known only when the rest of it has run."""
    return [
        number
        for number, (value, *others) in enumerate(zip(*(end.operands for end in ends), strict=True))
        if value in made or any(other is not value for other in others)
    ]


def made_by(ops: Collection[Op]) -> set[Value]:
    """What ops define, the regions in them included."""
    made = set()
    for op in ops:
        made.update(op.results)
        for region in op.regions:
            made.update(region.args)
            made |= made_by(region.ops)
    return made


def inside(op: Op, in_loop: bool = False, in_try: bool = False) -> Iterator[Op]:
    """The op and those in its regions, but for what leaves a loop or a try in it, and goes to a loop's next turn."""
    yield op
    in_loop, in_try = in_loop or op.name in ("flow.for", "flow.while"), in_try or op.name == "flow.try"
    for inner in (inner for region in op.regions for inner in region.ops):
        is_end = inner.name == "flow.continue" or (in_loop and inner.name == "flow.break")
        if not is_end and not (in_try and inner.name == "flow.leave"):
            yield from inside(inner, in_loop, in_try)


def own_ends(ops: Collection[Op]) -> Iterator[Op]:
    """The flow.continue and flow.break ops among these, and in them, that do not belong to a loop in them."""
    for op in ops:
        if op.name in ("flow.continue", "flow.break"):
            yield op
        if op.name not in ("flow.for", "flow.while"):
            for region in op.regions:
                yield from own_ends(region.ops)


def _is_ordered(op: Op, shared: set[Value], own: Collection[Value]) -> bool:
    """Whether an op could be told from the same op of another turn by more than what host code sees.

    shared: see `_shared_states`. own: the values that are made behind the ordered ops.
    """
    if op.name in _SHARING:
        return True
    if op.name in _ON_ITS_OWN:
        return op.operands[0] in shared
    if op.name == "flow.call":
        return bool(op.attrs.get("method")) or not shared.isdisjoint(op.operands)
    if op.name in ("py.push", "py.collect", "var.set", "var.get"):
        return op.operands[0] not in own
    if op.name == "py.dict":
        return any(operand not in own for operand in op.operands)
    written = op.operands[len(op.operands) - len(op.attrs.get("writes", ())) :]
    return any(op.attrs.get(name) for name in ("captures", "outer", "signals")) or any(v not in own for v in written)


def _shared_states(body: Region) -> set[Value]:
    """The prompts and cells that other turns may have too, and what has grown from them without a branch."""
    made = made_by(body.ops)
    shared = {value for op in body.walk() for value in op.operands if is_state(value) and value not in made}
    shared |= set(filter(is_state, body.args))
    num_shared = -1
    while num_shared != len(shared):
        num_shared = len(shared)
        for op in body.walk():
            inner = [each for region in op.regions for each in region.walk()]
            passed = [*op.operands, *(value for each in inner if each.name in _ENDS for value in each.operands)]
            if op.name not in ("prompt.branch", "cell.new") and not shared.isdisjoint(passed):
                given = [*op.results, *(arg for region in op.regions for arg in region.args)]
                stored_to = op.operands[:1] if op.name == "cell.store" else []
                shared.update(value for value in (*given, *stored_to) if is_state(value))
    return shared


def is_state(value: Value) -> bool:
    """Whether a value is a prompt or a cell."""
    return value.type in (PROMPT, CELL)
