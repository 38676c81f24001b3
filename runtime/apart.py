"""The turns of a loop, of which the next begins though the last has not ended: what `apart` allows in a flow.for.

The first ops of a turn run as ever. The rest of it starts at once too, in a strand of its own; when it has to wait, the
loop goes on. To the strand that it has left it is one task more (order.py): what others must not see before their time
waits for it, and an error in it ends the run where an eager one would have ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from ..ir.core import Op, Value
from ..ir.turns import split_turn
from ..ir.types import CELL, PROMPT
from .context import Context
from .host import Escaped, Unbound
from .hostwork import Reached, reach
from .linker import YIELD, Frame, LinkedRegion, Linker, Outcome, execute, place_above
from .order import MAX_LOOKED_AT, Late
from .pending import Pending, PendingObject, Settled
from .routine import Routine
from .strand import Strand

_GO_ON = "go on"


def turn_of(linker: Linker, op: Op, body: LinkedRegion) -> Callable[[Frame], Awaitable[Outcome]]:
    """What runs a turn of a flow.for."""
    region = op.regions[0]
    split = split_turn(region) if op.attrs.get("apart") else None
    if split is None:
        return partial(execute, body)
    num_first, late = split
    first, ops = {id(each) for each in region.ops[:num_first]}, region.ops[num_first:-1]
    num_steps = sum(id(each) in first for each, _ in body.steps)
    begin = LinkedRegion(body.args, body.steps[:num_steps], lambda _: (_GO_ON, []), body.last)
    rest = _Rest(linker, op, LinkedRegion([], body.steps[num_steps:], body.end, body.last), _walk(ops), late)

    async def run(frame: Frame) -> Outcome:
        outcome = await execute(begin, frame)
        return outcome if outcome[0] != _GO_ON else await rest.go_on(frame)

    return run


def _walk(ops: Sequence[Op]) -> list[Op]:
    return [each for op in ops for each in (op, *(inner for region in op.regions for inner in region.walk()))]


def _captured(ops: Sequence[Op]) -> list[Value]:
    """What ops use and others have made; defaults of parameters, which all turns share, are as good as that."""
    made = {value for op in ops if op.name != "py.default" for value in op.results}
    made |= {argument for op in ops for region in op.regions for argument in region.args}
    return list(dict.fromkeys(value for op in ops for value in op.operands if value not in made))


class _Rest:
    """The rest of a loop's turns. captured: the slots of the objects that it uses; prompts, cells: those of its states,
    which are its own. passed: the slots of what it passes on, of which those numbered in `late` are known when it has
    run. is_known: whether it does no more than can be seen of it.
    """

    __slots__ = ("_captured", "_cells", "_hosts", "_is_known", "_late", "_passed", "_program", "_prompts", "_region")

    def __init__(self, linker: Linker, op: Op, region: LinkedRegion, ops: Sequence[Op], late: list[int]) -> None:
        self._region = region
        captured = _captured(ops)
        self._captured = linker.slots([value for value in captured if value.type not in (PROMPT, CELL)])
        self._prompts = linker.slots([value for value in captured if value.type == PROMPT])
        self._cells = linker.slots([value for value in captured if value.type == CELL])
        self._hosts = [linker.hosts[id(each)] for each in ops if id(each) in linker.hosts]
        self._is_known = all(host.is_known for host in self._hosts) and all(each.name != "flow.call" for each in ops)
        self._passed = linker.slots(op.regions[0].ops[-1].operands)
        self._late = late
        self._program = linker.home(op).__name__

    async def go_on(self, frame: Frame) -> Outcome:
        """Run the rest until it waits; gives what the turn passes on, some of which may be on its way."""
        above = frame.strand
        variables = self._variables(frame)
        is_known = self._is_known and not any(isinstance(value, PendingObject) for value in variables)
        reached = self._reached(frame, variables)
        if reached is None:
            return await execute(self._region, frame)
        strand = Strand(frame.context)
        strand.order.follow(above.order)
        part = Frame(frame.function, strand, frame.values.copy(), frame.depth, None, frame.caller)
        body = _Part(execute(self._region, part), frame.context)
        body.start()
        if body.done and body.error is None and strand.is_idle:
            return body.result()
        over = Routine(_end(frame, part, body))
        over.start()
        if body.error is not None:
            await over
        above.remember(over, None, self._program)
        above.order.add(over, reached if is_known else None)
        return body.result() if body.done else (YIELD, self._promise(frame, body))

    def _variables(self, frame: Frame) -> list[Any]:
        """What the variables hold of the states that the rest uses."""
        prompts = [frame.values[slot] for slot in self._prompts]
        prompts += [frame.values[slot].prompt for slot in self._cells]
        return [node.bound_value() for prompt in prompts for node in prompt.names().values()]

    def _reached(self, frame: Frame, variables: Sequence[Any]) -> Reached | None:
        """What the rest may reach, as far as can be seen; None when it must not go on by itself."""
        order = frame.strand.order
        order.is_clear()  # forgets what is held no longer
        if frame.strand.num_watching or frame.handled is not None or frame.task is not None or order.is_full:
            return None
        values = [_settled(frame, slot) for slot in self._captured]
        if any(isinstance(value, PendingObject) and type(value) is not Late for value in values):
            return None
        there = [value for value in (*values, *variables) if not isinstance(value, Pending | Unbound)]
        outside = [value for host in self._hosts for value in host.outside_values()]
        reached = reach([*there, *outside], () if order.with_states else order.known, MAX_LOOKED_AT)
        if reached is None or reached.has_states or not order.with_states.isdisjoint(reached.mutable):
            return None
        return reached

    def _promise(self, frame: Frame, body: Routine[Outcome]) -> list[Any]:
        passed = [Late() if number in self._late else frame.values[slot] for number, slot in enumerate(self._passed)]
        late = [(number, passed[number]) for number in self._late]

        def deliver(_: Any) -> None:
            for number, promised in late:
                if body.error is not None:
                    promised.set_error(body.error)
                    continue
                value = body.result()[1][number]
                hold = frame.strand.order.hold
                if isinstance(value, Pending):
                    value.then(hold, promised)
                else:
                    promised.set_result(hold(value))

        body.add_callback(deliver)
        return passed


def _settled(frame: Frame, slot: int) -> Any:
    """The value in a slot, from now on without the Pending if it has arrived."""
    value = frame.values[slot]
    while isinstance(value, Pending) and value.done and value.error is None:
        value = frame.values[slot] = value.result()
    return value


class _Part(Routine[Outcome]):
    """A routine beside that of its run, with a place of its own in the trace; it ends when the run does."""

    __slots__ = ("_context", "_place")

    def __init__(self, coroutine: Any, context: Context) -> None:
        super().__init__(coroutine)
        self._context = context
        self._place = context.place_in_trace()

    def _advance(self, value: Any, error: BaseException | None) -> None:
        context, outer = self._context, self._context.here
        context.here = self._place
        context.apart.add(self)
        super()._advance(value, error)
        context.here = outer
        if self.done:
            context.apart.discard(self)


async def _end(frame: Frame, part: Frame, body: Routine[Outcome]) -> None:
    """Wait until the rest of a turn has run, and all that it has read has arrived. Raises the first error."""
    await Settled(body)
    order = part.strand.order
    error = await part.strand.read_error()
    if error is None and body.error is not None:
        error = body.error.error if isinstance(body.error, Escaped) else body.error
        if isinstance(error, Exception) and not any(error is placed for placed in order.placed):
            place_above(error, part)
    if error is not None:
        frame.strand.order.placed.append(error)
        raise Escaped(error) if isinstance(error, StopIteration) else error
