"""Links functions of IR for execution: every op becomes a closure over the slots of its operands and results.

A step either has run when it returns None, or gives a coroutine to await. Values that have not arrived (Pending) are
passed along as they are; steps made by `waiting` first wait for the operands that they need.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from ..ir.core import Function, Op, Region, Value
from ..ir.errors import Cancelled
from ..ir.parts import Part, Parts
from ..ir.span import Span
from ..ir.turns import is_state
from .host import Escaped, HostOp, Unbound
from .pending import Pending
from .strand import Strand
from .trail import add_frame, mark

# Why a region ended, and with which values.
Outcome = tuple[str, list[Any]]
Waiting = Coroutine[Any, Any, Outcome | None] | None
Step = Callable[["Frame"], Waiting]

CALLS = ("flow.call", "flow.invoke", "py.call")
"""Ops that go on in other code."""

YIELD, BREAK, CONTINUE, CONDITION = "yield", "break", "continue", "condition"
# These end every region around them: up to the function's, up to the innermost try's.
RETURN, LEAVE = "return", "leave"


class Frame:
    """One call of a function: its values by slot. turns counts loop turns since the others last had theirs.

    task: where host code runs, in an `async def` program and in all that it calls; None for the host pool. handled: the
    exception that is being handled, by this function or one that has called it. caller: the frame and op of the call.
    """

    __slots__ = ("caller", "context", "depth", "function", "handled", "strand", "task", "turns", "values")

    def __init__(
        self,
        function: LinkedFunction,
        strand: Strand,
        values: list[Any],
        depth: int,
        handled: BaseException | None = None,
        caller: tuple[Frame, Op] | None = None,
    ) -> None:
        self.function = function
        self.caller = caller
        self.strand = strand
        self.context = strand.context
        self.task = strand.task
        self.values = values
        self.depth = depth
        self.handled = handled
        self.turns = 0


@dataclass(slots=True)
class LinkedRegion:
    """A region's argument slots, its steps, and what ends it (and the op that says so)."""

    args: list[int]
    steps: list[tuple[Op, Step]]
    end: Callable[[Frame], Outcome]
    last: Op | None


class LinkedFunction:
    """A function's body, and the values that its slots hold at the start. hosts, calls: its host code, and the ops
    that go on elsewhere.
    """

    __slots__ = (
        "_simple",
        "_sources",
        "body",
        "calls",
        "hosts",
        "is_async",
        "name",
        "python",
        "python_name",
        "signature",
        "template",
    )

    def __init__(self, linker: Linker, body: LinkedRegion) -> None:
        python = linker.python
        self.name = linker.function.name
        self._sources = linker.sources
        self.python = python
        self.python_name = python.__name__
        self.is_async = inspect.iscoroutinefunction(python)
        self.body = body
        self.hosts = list(linker.hosts.values())
        self.calls = [op for op in linker.function.body.walk() if op.name in CALLS]
        self.template = linker.template
        self.signature = inspect.signature(python)
        kinds = {parameter.kind for parameter in self.signature.parameters.values()}
        self._simple = not kinds - {inspect.Parameter.POSITIONAL_OR_KEYWORD}

    def program(self, op: Op) -> str:
        """The name of the Python function that an op of this function comes from."""
        return self._sources[op.inlined[0].callee].__name__ if op.inlined else self.python_name

    def places(self, op: Op) -> list[tuple[Span, str]]:
        """Where an op stands, and below it the calls around it that were inlined: each with the function's name."""
        spans = [op.span, *(call.span for call in op.inlined)]
        names = [*(self._sources[call.callee].__name__ for call in op.inlined), self.python_name]
        return [(span, name) for span, name in zip(spans, names, strict=True) if span is not None]

    def bind(self, positional: Sequence[Any], keywords: Mapping[str, Any]) -> list[Any]:
        """One value for each parameter, as Python matches them. Raises TypeError."""
        if self._simple and not keywords and len(positional) == len(self.signature.parameters):
            return list(positional)
        try:
            bound = self.signature.bind(*positional, **keywords)
        except TypeError as error:
            _parameters_of(self.python)(*positional, **keywords)  # Python says it in its own words
            raise TypeError(f"{self.name}() {error}") from None
        bound.apply_defaults()
        return list(bound.arguments.values())


def _parameters_of(function: FunctionType) -> FunctionType:
    """A function that takes what `function` takes, and does nothing."""
    code, takes_more = function.__code__, inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
    num_names = code.co_argcount + code.co_kwonlyargcount + (code.co_flags & takes_more).bit_count()
    nothing = (lambda: None).__code__
    code = nothing.replace(
        co_argcount=code.co_argcount,
        co_posonlyargcount=code.co_posonlyargcount,
        co_kwonlyargcount=code.co_kwonlyargcount,
        co_varnames=code.co_varnames[:num_names],
        co_nlocals=num_names,
        co_flags=nothing.co_flags | code.co_flags & takes_more,
        co_name=code.co_name,
        co_qualname=code.co_qualname,
    )
    made = FunctionType(code, {}, function.__name__, function.__defaults__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


async def execute(region: LinkedRegion, frame: Frame) -> Outcome:
    """Run a region's steps until one leaves it or the end is reached."""
    current = None
    try:
        for op, step in region.steps:
            current = op
            waiting = step(frame)
            if waiting is not None:
                outcome = await waiting
                if outcome is not None:
                    return outcome
        current = region.last
        return region.end(frame)
    except Exception as error:
        if current is not None and current.span is not None:
            _mark(error.error if isinstance(error, Escaped) else error, current, frame)
        raise


def _mark(error: Exception, op: Op, frame: Frame) -> None:
    """Leave a trace of the op in an error: the first one it passes says where it arose, calls say how it came there."""
    if any(error is placed for placed in frame.strand.order.placed):
        return
    places = frame.function.places(op)
    if frame.strand.marked is not error:
        frame.strand.marked = error
        mark(error, *places[0])
        _add_frames(error, places[1:])
    elif op.name in ("flow.call", "flow.invoke") or (error is frame.strand.caught and op.name == "prompt.get"):
        _add_frames(error, places)
    frame.strand.caught = None


def _add_frames(error: Exception, places: Iterable[tuple[Span, str]]) -> None:
    for span, program in places:
        add_frame(error, span, program)


def place(error: Exception, op: Op, frame: Frame) -> None:
    """Leave the whole trace of an op that was put off in its error; whoever meets it later adds nothing."""
    order = frame.strand.order
    if isinstance(error, Cancelled) or any(error is placed for placed in order.placed):
        return
    order.placed.append(error)
    if op.span is None:
        return
    first, *rest = frame.function.places(op)
    mark(error, *first)
    _add_frames(error, rest)
    place_above(error, frame)


def place_above(error: Exception, frame: Frame) -> None:
    """Leave a trace of the calls that led to a frame in an error that does not pass them."""
    caller = frame.caller
    while caller is not None:
        above, call = caller
        _add_frames(error, above.function.places(call))
        caller = above.caller


@dataclass(slots=True)
class Linker:
    """Turns the ops of one function into steps. `makers` has, for each op name, what makes its step.

    sources: for each function of the module, also those that were inlined, the Python function it comes from.
    make_part: makes the step of ops that may run beside those behind them, if any may. functions: the linked functions
    of the module, once all are. hosts: the linked host code by the ids of its ops.
    """

    function: Function
    python: FunctionType
    sources: Mapping[str, FunctionType]
    makers: Mapping[str, Callable[[Linker, Op], Step]]
    make_part: Callable[[Linker, Sequence[Op], Part], Step] | None
    functions: Mapping[str, LinkedFunction]
    template: list[Any] = field(default_factory=list)
    hosts: dict[int, HostOp] = field(default_factory=dict)
    _slots: dict[Value, int] = field(default_factory=dict)
    _parts: Parts = field(init=False)

    def __post_init__(self) -> None:
        self._parts = Parts(self.function, lambda op: not self.host(op).can_wait)

    def link(self) -> LinkedFunction:
        """The linked function."""
        return LinkedFunction(self, self.region(self.function.body))

    def home(self, op: Op) -> FunctionType:
        """The Python function that an op comes from: its host code sees the globals and closure of that one."""
        return self.sources[op.inlined[0].callee] if op.inlined else self.python

    def host(self, op: Op) -> HostOp:
        """The linked host code of a py.expr or py.block."""
        host = self.hosts.get(id(op))
        if host is None:
            host = self.hosts[id(op)] = HostOp(op, self.home(op))
        return host

    def region(self, region: Region) -> LinkedRegion:
        """Link a region; its last op becomes its end."""
        return self.row(region.args, region.ops)

    def row(self, args: Sequence[Value], ops: Sequence[Op]) -> LinkedRegion:
        """Link some ops of a region; the last becomes their end if it is a terminator."""
        last = ops[-1] if ops else None
        before = ops[:-1] if last is not None and last.name in _ENDINGS else ops
        steps, done = [], 0
        make_part = self.make_part
        for part in () if make_part is None else self._parts.find(before):
            assert make_part is not None
            steps += self.steps(before[done : part.start])
            steps.append((before[part.start], make_part(self, before[part.start : part.end], part)))
            done = part.end
        steps += self.steps(before[done:])
        if last is None or last.name not in _ENDINGS:
            return LinkedRegion(self.slots(args), steps, _no_values, last)
        if late := self._late(last):
            steps.append((last, waiting(late, _nothing)))
        return LinkedRegion(self.slots(args), steps, _ENDINGS[last.name](last, self.slots(last.operands)), last)

    def plain(self, ops: Sequence[Op]) -> LinkedRegion:
        """Link some ops without an end, which run one after the other."""
        return LinkedRegion([], self.steps(ops), _no_values, ops[-1])

    def steps(self, ops: Sequence[Op]) -> list[tuple[Op, Step]]:
        """The steps of ops that run one after the other."""
        steps = []
        for op in ops:
            if op.name in _CONSTANTS and (value := _CONSTANTS[op.name](self, op)) is not None:
                self.template[self.slot(op.result)] = value[0]
                continue
            step, late = self.makers[op.name](self, op), self._late(op)
            steps.append((op, waiting(late, step) if late and op.name != "hint.warm" else step))
        return steps

    def _late(self, op: Op) -> list[int]:
        """The slots of the prompts and cells that an op uses and a part may not have given yet."""
        return self.slots([value for value in op.operands if is_state(value) and value in self._parts.late])

    def slot(self, value: Value) -> int:
        """The slot of a value."""
        slot = self._slots.get(value)
        if slot is None:
            slot = self._slots[value] = len(self.template)
            self.template.append(None)
        return slot

    def slots(self, values: Sequence[Value]) -> list[int]:
        """The slots of values."""
        return [self.slot(value) for value in values]


def _passing(kind: str) -> Callable[[Op, list[int]], Callable[[Frame], Outcome]]:
    """The maker of an end that passes values on."""

    def make(_: Op, slots: list[int]) -> Callable[[Frame], Outcome]:
        def end(frame: Frame) -> Outcome:
            values = frame.values
            return kind, [values[slot] for slot in slots]

        return end

    return make


def _returning(_: Op, slots: list[int]) -> Callable[[Frame], Outcome]:
    (slot,) = slots

    def end(frame: Frame) -> Outcome:
        return RETURN, [_bound(frame, slot)]

    return end


def _leaving(op: Op, slots: list[int]) -> Callable[[Frame], Outcome]:
    kind = op.attrs["kind"]

    def end(frame: Frame) -> Outcome:
        return LEAVE, [kind, _bound(frame, slots[0]) if slots else None]

    return end


def _raising(_: Op, slots: list[int]) -> Callable[[Frame], Outcome]:
    (slot,) = slots

    def end(frame: Frame) -> Outcome:
        error = frame.values[slot]
        raise Escaped(error) if isinstance(error, StopIteration) else error

    return end


def _bound(frame: Frame, slot: int) -> Any:
    value = frame.values[slot]
    if isinstance(value, Unbound):
        raise value.error()
    return value


_ENDINGS: dict[str, Callable[[Op, list[int]], Callable[[Frame], Outcome]]] = {
    **{f"flow.{kind}": _passing(kind) for kind in (YIELD, BREAK, CONTINUE, CONDITION)},
    "flow.return": _returning,
    "flow.leave": _leaving,
    "flow.raise": _raising,
}


def _nothing(_: Frame) -> None:
    return None


def _no_values(_: Frame) -> Outcome:
    return YIELD, []


def _constant(_: Linker, op: Op) -> tuple[Any] | None:
    """A constant that all runs can share; None for lists and dicts, which each run needs for itself."""
    value = op.attrs.get("value")
    return (value,) if value is None or isinstance(value, bool | int | float | str) else None


def _unbound(_: Linker, op: Op) -> tuple[Any] | None:
    return (Unbound(op.attrs["name"]),)


def _default(linker: Linker, op: Op) -> tuple[Any] | None:
    signature = inspect.signature(linker.sources[op.attrs["callee"]])
    return (signature.parameters[op.attrs["name"]].default,)


# Ops whose value is known when the module is linked.
_CONSTANTS: dict[str, Callable[[Linker, Op], tuple[Any] | None]] = {
    "py.const": _constant,
    "py.default": _default,
    "py.unbound": _unbound,
}


def in_turn(slots: Sequence[int], step: Step) -> Step:
    """A step that waits for its turn if something that was put off may change one of the values in `slots`."""

    async def wait(frame: Frame) -> Outcome | None:
        await frame.strand.order.turn()
        more = step(frame)
        return None if more is None else await more

    def look(frame: Frame) -> Waiting:
        order = frame.strand.order
        if not order.is_clear() and order.may_change([frame.values[slot] for slot in slots]):
            return wait(frame)
        return step(frame)

    return look


def waiting(slots: Sequence[int], step: Step) -> Step:
    """A step that first waits until the values in `slots` have arrived. An unassigned variable among them raises."""
    if len(slots) == 1:
        (only,) = slots

        def wait_for_one(frame: Frame) -> Waiting:
            if isinstance(frame.values[only], _NOT_THERE):
                return _arrive(frame, slots, step)
            return step(frame)

        return wait_for_one

    def wait_for_all(frame: Frame) -> Waiting:
        values = frame.values
        for slot in slots:
            if isinstance(values[slot], _NOT_THERE):
                return _arrive(frame, slots, step)
        return step(frame)

    return wait_for_all


_NOT_THERE = (Pending, Unbound)


async def _arrive(frame: Frame, slots: Sequence[int], step: Step) -> Outcome | None:
    values = frame.values
    for slot in slots:
        if isinstance(values[slot], Unbound):
            raise values[slot].error()
        while isinstance(values[slot], Pending):
            values[slot] = await values[slot]
    more = step(frame)
    return None if more is None else await more
