"""Ops that run beside those behind them: the parts of a region (ir/parts.py), and the rests of a loop's turns.

A part starts where it stands, in a strand of its own; when it has to wait, the program goes on, and what the part
makes is on its way, prompts too. To the strand that it has left it is one task more (order.py): what others must not
see before their time waits for it, and an error in it ends the run where an eager one would have ended. So with `apart`
in a flow.for: the first ops of a turn run as ever, and the next turn begins though the rest of the last has not ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from ..ir.core import Op, Value
from ..ir.parts import HOST_CODE, WAITING, Part
from ..ir.turns import is_state, split_turn
from ..ir.types import TEXT
from .context import Context
from .expression import Expression
from .host import Escaped, HostOp, Unbound
from .hostwork import Reached, reach
from .linker import CALLS, YIELD, Frame, LinkedFunction, LinkedRegion, Linker, Outcome, Step, execute, place_above
from .order import MAX_LOOKED_AT, Late, Order
from .pending import AnnouncedText, Pending, PendingObject, PendingText, Settled
from .prompt import Prompt
from .routine import Routine
from .strand import Strand

_GO_ON = "go on"
MAX_DEPTH = 32
"""Strands that were put off put off others, but no deeper than this: each starts on top of the other's stack."""


def part_step(linker: Linker, ops: Sequence[Op], part: Part) -> Step:
    """The step of a part, which gives what it makes, or Pendings of it."""
    beside = _Beside(linker, ops, linker.plain(ops))
    given, cells = linker.slots(part.given), linker.slots(part.cells)
    promises = [_promise(value) for value in part.given]
    always, is_host = ops[0].name in WAITING, ops[0].name in HOST_CODE

    async def run(frame: Frame) -> None:
        begun = await beside.begin(frame)
        if begun is None:
            return await here(frame)
        values = begun.frame.values
        if begun.body.done:
            for slot in given:
                frame.values[slot] = values[slot]
            return None
        promised = [*(promise() for promise in promises), *(Pending[Any]() for _ in cells)]
        slots = [*given, *cells]
        for slot, late in zip(slots, promised, strict=True):
            frame.values[slot] = late
        begun.deliver(frame.strand.order, promised, lambda: [values[slot] for slot in slots])
        return None

    async def here(frame: Frame) -> None:
        await beside.run_here(frame)

    def step(frame: Frame) -> Any:
        if always or beside.waits(frame) or (is_host and not frame.strand.order.is_clear()):
            return run(frame)
        return here(frame)

    return step


def _promise(value: Value) -> Callable[[], Pending[Any]]:
    if is_state(value):
        return Pending
    return PendingText if value.type == TEXT else Late


def turn_of(linker: Linker, op: Op) -> tuple[list[int], Callable[[Frame], Awaitable[Outcome]]]:
    """The slots of a flow.for's item and carried values, and what runs a turn of it."""
    region = op.regions[0]
    split = split_turn(region) if op.attrs.get("apart") else None
    if split is None:
        body = linker.region(region)
        return body.args, partial(execute, body)
    num_first, late = split
    linked = linker.row(region.args, region.ops[:num_first])
    begin = LinkedRegion(linked.args, linked.steps, lambda _: (_GO_ON, []), linked.last)
    ops = region.ops[num_first:]
    rest = _Beside(linker, ops, linker.row([], ops))
    passed = linker.slots(ops[-1].operands)

    async def run(frame: Frame) -> Outcome:
        outcome = await execute(begin, frame)
        if outcome[0] != _GO_ON:
            return outcome
        begun = await rest.begin(frame)
        if begun is None:
            return await rest.run_here(frame)
        body = begun.body
        if body.done:
            return body.result()
        values = [Late() if number in late else frame.values[slot] for number, slot in enumerate(passed)]
        promised = [values[number] for number in late]
        begun.deliver(frame.strand.order, promised, lambda: [body.result()[1][number] for number in late])
        return YIELD, values

    return linked.args, run


def _captured(ops: Sequence[Op]) -> list[Value]:
    """What ops use and others have made; defaults of parameters, which all turns share, are as good as that."""
    made = {value for op in ops if op.name != "py.default" for value in op.results}
    made |= {argument for op in ops for region in op.regions for argument in region.args}
    return list(dict.fromkeys(value for op in ops for value in op.operands if value not in made))


class _Begun(NamedTuple):
    """What runs beside: its frame, its routine, and the task that it is to the strand which goes on (None if it is over
    already).
    """

    frame: Frame
    body: Routine[Outcome]
    over: Routine[None] | None

    def deliver(self, order: Order, promised: Sequence[Pending[Any]], values: Callable[[], list[Any]]) -> None:
        """Keep what was promised: the values when it has run, or the error with which it is over."""
        assert self.over is not None

        def keep(body: Pending[Outcome]) -> None:
            if body.error is None:
                for late, value in zip(promised, values(), strict=True):
                    _give(order, late, value)

        def fail(over: Pending[None]) -> None:
            if over.error is not None:
                for late in promised:
                    late.set_error(over.error)

        self.body.add_callback(keep)
        self.over.add_callback(fail)


def _give(order: Order, late: Pending[Any], value: Any) -> None:
    """Keep a promise. What others may change of the value is held before anybody can see it."""
    if isinstance(value, Pending):
        value.then(order.hold, late)
        return
    prompt = value if isinstance(value, Prompt) else getattr(value, "prompt", None)
    if not isinstance(prompt, Prompt):
        late.set_result(order.hold(value))
        return
    for node in prompt.names().values():
        bound = node.bound_value()
        if isinstance(bound, Pending):
            bound.then(order.hold)
        else:
            order.hold(bound)
    late.set_result(value)


@dataclass(slots=True)
class _Seen:
    """What can be seen of some ops and all that they call: the host code, and defaults of parameters. is_all: whether
    they do no more than that.
    """

    hosts: list[HostOp]
    defaults: list[Any]
    is_all: bool

    @classmethod
    def of(cls, hosts: list[HostOp], calls: list[Op], functions: Mapping[str, LinkedFunction]) -> _Seen:
        """All of it, through the functions of the module."""
        seen = cls(list(hosts), [], is_all=True)
        found, todo = set[str](), list(calls)
        while todo:
            op = todo.pop()
            seen.is_all &= op.name == "flow.call" and not op.attrs.get("method")
            callee = str(op.attrs.get("callee"))
            if not seen.is_all or callee in found:
                continue
            found.add(callee)
            function = functions[callee]
            todo += function.calls
            seen.hosts += function.hosts
            seen.defaults += [*(function.python.__defaults__ or ()), *(function.python.__kwdefaults__ or {}).values()]
        seen.is_all &= all(host.is_known for host in seen.hosts)
        return seen


class _Beside:
    """Ops of a region that may run in a strand of their own. captured: the slots of the objects that they use; states:
    those of the prompts and cells. texts: the captured ones that are only appended. hosts: their host code.
    """

    __slots__ = ("_calls", "_captured", "_functions", "_hosts", "_program", "_region", "_seen", "_states", "_texts")

    def __init__(self, linker: Linker, ops: Sequence[Op], region: LinkedRegion) -> None:
        self._region = region
        walked = [inner for op in ops for inner in op.walk()]
        captured = _captured(walked)
        self._captured = linker.slots([value for value in captured if not is_state(value)])
        self._states = linker.slots([value for value in captured if is_state(value)])
        looked = {value for op in walked if op.name != "prompt.append" for value in op.operands}
        self._texts = set(linker.slots([value for value in captured if value not in looked]))
        self._hosts = [linker.hosts[id(op)] for op in walked if id(op) in linker.hosts]
        self._calls = [op for op in walked if op.name in CALLS]
        self._functions = linker.functions
        self._seen: _Seen | None = None
        self._program = linker.home(ops[0]).__name__

    def waits(self, frame: Frame) -> bool:
        """Whether something that the ops use has not arrived, and they could not use it before."""
        return any(self._is_late(frame, slot) for slot in (*self._states, *self._captured))

    def _is_late(self, frame: Frame, slot: int) -> bool:
        value = _settled(frame, slot)
        return isinstance(value, Pending) and not (
            slot in self._texts and isinstance(value, PendingText | AnnouncedText)
        )

    async def run_here(self, frame: Frame) -> Outcome:
        """Run the ops in the strand itself."""
        for slot in self._states:
            while isinstance(frame.values[slot], Pending):
                frame.values[slot] = await frame.values[slot]
        return await execute(self._region, frame)

    async def begin(self, frame: Frame) -> _Begun | None:
        """Run the ops until they wait; None when they must not go on by themselves. Raises their error, if they have
        failed already.
        """
        above = frame.strand
        if not self._may_go_on(frame):
            return None
        reached = self._reached(frame)
        if reached is None and above.has_visitors:
            return None
        if reached is not None and (reached.has_states or not above.order.with_states.isdisjoint(reached.mutable)):
            return None
        strand = Strand(frame.context, above=above)
        part = Frame(frame.function, strand, frame.values.copy(), frame.depth, None, frame.caller)
        body = _Part(self.run_here(part), frame.context)
        body.start()
        if body.done and body.error is None and strand.is_idle:
            return _Begun(part, body, None)
        over = Routine(_end(frame, part, body))
        over.start()
        if body.error is not None:
            await over
        above.remember(over, None, self._program)
        above.order.add(over, reached)
        return _Begun(part, body, over)

    def _variables(self, frame: Frame) -> list[Any]:
        """What the variables hold of the states that the ops use, as far as these have arrived: what others have is
        held already, and what is new will be before it can be seen.
        """
        states = [_settled(frame, slot) for slot in self._states]
        there = [state for state in states if not isinstance(state, Pending)]
        prompts = [state if isinstance(state, Prompt) else state.prompt for state in there]
        return [node.bound_value() for prompt in prompts for node in prompt.names().values()]

    def _may_go_on(self, frame: Frame) -> bool:
        """Whether the ops may leave the strand, as far as it is concerned."""
        strand = frame.strand
        strand.order.is_clear()  # forgets what is held no longer
        is_watched = strand.num_watching or frame.handled is not None or frame.task is not None
        return not (is_watched or strand.order.is_full or strand.depth >= MAX_DEPTH)

    def _reached(self, frame: Frame) -> Reached | None:
        """What the ops may reach; None when that cannot be seen."""
        variables = self._variables(frame)
        values = [_settled(frame, slot) for slot in self._captured]
        seen = self._seen = self._seen or _Seen.of(self._hosts, self._calls, self._functions)
        if not seen.is_all or any(isinstance(value, PendingObject) for value in variables):
            return None
        if any(isinstance(value, PendingObject) and type(value) is not Late for value in values):
            return None
        there = [each for each in (*values, *variables) if not isinstance(each, Pending | Unbound | Expression)]
        outside = [*seen.defaults, *(value for host in seen.hosts for value in host.outside_values())]
        order = frame.strand.order
        return reach([*there, *outside], () if order.with_states else order.known, MAX_LOOKED_AT)


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
