"""The steps of control flow: if, for, while and calls.

Regions end with an outcome (why, values). A break or continue is met by the innermost loop, a return by the call; what
leaves a try (trying.py) is met by that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..ir.core import Op
from .apart import turn_of
from .calling import in_pool, in_pool_in_turn
from .host import Escaped, Unbound
from .hostpool import host_pool
from .linker import BREAK, LEAVE, RETURN, YIELD, Frame, LinkedFunction, Linker, Outcome, Step, execute, waiting
from .methods import runs
from .order import Order
from .pending import Pending, gather
from .reading import Branches
from .routine import Call, breath
from .strand import Strand

# Loop turns after which an instance lets the others go on.
_TURNS_PER_BREATH = 64
_MAX_DEPTH = 10_000
_END = object()
_PLAIN = {str, int, float, bool, type(None), list, tuple, dict, set, frozenset, bytes, range}
_CHANGING = {list, dict, set}
_EXAMPLES: tuple[Iterable[Any], ...] = ([], (), {}, {}.values(), {}.items(), set(), "a", "\u00e9", b"", range(0))
_PLAIN_ITERATORS: set[type] = {type(reversed([])), *(type(iter(example)) for example in _EXAMPLES)}
_LIST_ITERATORS: set[type] = {type(iter([])), type(reversed([]))}
_FIXED_ITERATORS = {type(iter(example)) for example in ((), "a", "\u00e9", b"", range(0))}


async def _truth(frame: Frame, value: Any) -> bool:
    """Whether a value counts as true; its own __bool__ or __len__ runs on a host thread."""
    order = frame.strand.order
    if type(value) in _PLAIN:
        if type(value) in _CHANGING and not order.is_clear() and order.holds([id(value)]):
            await order.turn()
        return bool(value)
    return await in_pool_in_turn(frame, bool, value)  # type: ignore[no-any-return]


async def _breathe(frame: Frame) -> None:
    """After some turns of loops, let other instances go on."""
    frame.turns += 1
    if frame.turns >= _TURNS_PER_BREATH:
        frame.turns = 0
        frame.strand.order.check()
        await breath
        if frame.context.cancelled is not None:
            raise frame.context.cancelled


def _assign(frame: Frame, slots: list[int], values: list[Any]) -> None:
    for slot, value in zip(slots, values, strict=True):
        frame.values[slot] = value


def flow_if(linker: Linker, op: Op) -> Step:
    (condition,), results = linker.slots(op.operands), linker.slots(op.results)
    yes, no = (linker.region(region) for region in op.regions)

    async def step(frame: Frame) -> Outcome | None:
        chosen = yes if await _truth(frame, frame.values[condition]) else no
        outcome = await execute(chosen, frame)
        if outcome[0] != YIELD:
            return outcome
        _assign(frame, results, outcome[1])
        return None

    return waiting((condition,), step)


def flow_for(linker: Linker, op: Op) -> Step:
    (source, *starts), results = linker.slots(op.operands), linker.slots(op.results)
    (item_slot, *carried_slots), turn = turn_of(linker, op)

    async def step(frame: Frame) -> Outcome | None:
        values = frame.values
        carried = [values[slot] for slot in starts]
        iterator = await _iterate(frame, values[source])
        is_plain, order, drawn_from = _is_plain_iterator(iterator), frame.strand.order, None
        while True:
            if not order.is_clear():
                drawn_from = drawn_from or _Sources(iterator)
                if drawn_from.may_change(order):
                    await order.turn()
            item = next(iterator, _END) if is_plain else await in_pool(frame, next, iterator, _END, span=op.span)
            if item is _END:
                break
            values[item_slot] = item
            _assign(frame, carried_slots, carried)
            kind, outcome = await turn(frame)
            if kind in (RETURN, LEAVE):
                return kind, outcome
            carried = outcome
            if kind == BREAK:
                break
            await _breathe(frame)
        _assign(frame, results, carried)
        return None

    return waiting((source,), step)


async def _iterate(frame: Frame, iterable: Any) -> Iterator[Any]:
    order = frame.strand.order
    if type(iterable) in _CHANGING and not order.is_clear() and order.holds([id(iterable)]):
        await order.turn()
    if type(iterable) in _PLAIN or isinstance(iterable, Branches) or _is_plain_iterator(iterable):
        return iter(iterable)
    return await in_pool_in_turn(frame, iter, iterable)  # type: ignore[no-any-return]


def _is_plain_iterator(iterator: object) -> bool:
    """Whether asking the iterator for an item runs no code of the user's."""
    todo = [iterator]
    while todo:
        each = todo.pop()
        if isinstance(each, zip | enumerate):
            todo.extend(_inner_iterators(each))
        elif type(each) not in _PLAIN_ITERATORS:
            return False
    return True


class _Sources:
    """The objects that a loop's iterator draws from, as far as they may be changed."""

    __slots__ = ("_are_known", "_ids")

    def __init__(self, iterator: object) -> None:
        self._ids: list[int] = []
        self._are_known = True
        todo = [iterator]
        while todo:
            each = todo.pop()
            if isinstance(each, zip | enumerate):
                todo.extend(_inner_iterators(each))
            elif type(each) in _LIST_ITERATORS:
                self._ids.append(id(each.__reduce__()[1][0]))
            else:
                self._are_known &= type(each) in _FIXED_ITERATORS

    def may_change(self, order: Order) -> bool:
        """Whether something that was put off may change what comes next."""
        return not self._are_known or order.holds(self._ids)


def _inner_iterators(iterator: Any) -> list[Any]:
    """What a zip or enumerate draws from."""
    parts = iterator.__reduce__()[1]
    return list(parts) if isinstance(iterator, zip) else [parts[0]]


def flow_while(linker: Linker, op: Op) -> Step:
    starts, results = linker.slots(op.operands), linker.slots(op.results)
    test, body = (linker.region(region) for region in op.regions)

    async def step(frame: Frame) -> Outcome | None:
        carried = [frame.values[slot] for slot in starts]
        while True:
            _assign(frame, test.args, carried)
            _, (condition, *carried) = await execute(test, frame)
            while isinstance(condition, Pending):
                condition = await condition
            if not await _truth(frame, condition):
                break
            _assign(frame, body.args, carried)
            kind, outcome = await execute(body, frame)
            if kind in (RETURN, LEAVE):
                return kind, outcome
            carried = outcome
            if kind == BREAK:
                break
            await _breathe(frame)
        _assign(frame, results, carried)
        return None

    return step


async def invoke(
    function: LinkedFunction,
    strand: Strand,
    arguments: list[Any],
    depth: int,
    handled: BaseException | None = None,
    caller: tuple[Frame, Op] | None = None,
) -> Any:
    """Run a function on one value for each parameter; its own value may still be on its way."""
    if depth > _MAX_DEPTH:
        raise RecursionError(f"programs call one another more than {_MAX_DEPTH} levels deep")
    values = function.template.copy()
    frame = Frame(function, strand, values, depth, handled, caller)
    _assign(frame, function.body.args, arguments)
    try:
        _, (result,) = await execute(function.body, frame)
        return result
    except Escaped as error:
        if not function.is_async:
            raise
        stop = error.error
    raised = RuntimeError("coroutine raised StopIteration")
    raised.__cause__ = raised.__context__ = stop
    raise raised


def flow_call(linker: Linker, op: Op) -> Step:
    operands, result = linker.slots(op.operands), linker.slot(op.result)
    callee, method, keywords = op.attrs["callee"], op.attrs.get("method"), op.attrs.get("keywords") or ()
    num_positional, functions = len(operands) - len(keywords), linker.functions

    async def step(frame: Frame) -> None:
        values = [frame.values[slot] for slot in operands]
        for value in values:
            if isinstance(value, Unbound):
                raise value.error()
        function = functions[callee]
        named = dict(zip(keywords, values[num_positional:], strict=True))
        if method is not None and not runs(values[0], method, function.python):
            frame.values[result] = await _call_method(frame, op, method, values[:num_positional], named)
            return
        arguments = function.bind(values[:num_positional], named)
        called = invoke(function, frame.strand, arguments, frame.depth + 1, frame.handled, (frame, op))
        frame.values[result] = await Call(called)

    return step


def flow_invoke(linker: Linker, op: Op) -> Step:
    (callee, *operands), result = linker.slots(op.operands), linker.slot(op.result)
    keywords = op.attrs.get("keywords") or ()
    num_positional = len(operands) - len(keywords)

    async def step(frame: Frame) -> None:
        values = [frame.values[slot] for slot in operands]
        for value in values:
            if isinstance(value, Unbound):
                raise value.error()
        named = dict(zip(keywords, values[num_positional:], strict=True))
        frame.values[result] = await _call_value(frame, op, frame.values[callee], values[:num_positional], named)

    return waiting((callee,), step)


async def _call_method(frame: Frame, op: Op, method: str, values: list[Any], named: dict[str, Any]) -> Any:
    """Call whatever an object of an unexpected class has under the name."""
    (receiver,) = await gather(values[:1])
    callee = await in_pool_in_turn(frame, getattr, receiver, method)
    return await _call_value(frame, op, callee, values[1:], named)


async def _call_value(frame: Frame, op: Op, callee: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Call any value, on arguments that may be on their way: a program's compiled form goes on in this strand."""
    if getattr(callee, "__ramify__", None) == "program":
        is_stepped = frame.context.stepper is not None
        part = await host_pool().submit(
            lambda: callee.part(args, kwargs, is_stepped)
        )  # it may have to be compiled first
        if part is not None:
            interpreter, values = part
            values = [await _collected(value) for value in values]
            return await Call(interpreter.call(frame, op, values))
    args, named = await gather(args), dict(zip(kwargs, await gather(list(kwargs.values())), strict=True))
    await frame.strand.order.turn()
    frame.strand.check_reads()
    return await in_pool(frame, lambda: callee(*args, **named), span=op.span)


async def _collected(value: Any) -> Any:
    """An argument; what *args and **kwargs have collected arrives first."""
    if type(value) is tuple and any(isinstance(item, Pending) for item in value):
        return tuple(await gather(value))
    if type(value) is dict and any(isinstance(item, Pending) for item in value.values()):
        return dict(zip(value, await gather(list(value.values())), strict=True))
    return value
