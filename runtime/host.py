"""Links py.expr and py.block ops to callables.

An op is linked once per module: its code is compiled, and it is settled what it takes to run it on the loop thread.
Boxes (variables that nested functions share) are CPython cells, and globals are the function's own, so that host code
behaves as it does in the function it was taken from.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from types import CellType, CodeType, FunctionType
from typing import Any, NoReturn

from ..ir.core import Op
from ..ir.private import mangled, private_prefix
from .effects import Callees, NoValue, holds_state, read_outside, still_read, why_not_harmless
from .hostcode import HostCode, Result, cell_of_free_variable, compile_host, parse
from .hostwork import Reached, Uses, are_plain, may_change, outside_names, reach
from .order import MAX_LOOKED_AT, Order
from .pending import Pending, PendingObject
from .prompt import Prompt
from .reading import Branches, Reading

_MISSING = object()
_FREE = "cannot access free variable {!r} where it is not associated with a value in enclosing scope"
_NONE: frozenset[str] = frozenset()


class Unbound:
    """The state of a local variable before it is assigned."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def error(self) -> UnboundLocalError:
        """What Python raises when the variable is used."""
        return UnboundLocalError(f"cannot access local variable {self.name!r} where it is not associated with a value")


class Variable:
    """A local variable that a try assigns, with the value it has now (which may be a Pending, or Unbound)."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Escaped(Exception):
    """Carries a StopIteration of host code through coroutines, in which it would mean something else."""

    def __init__(self, error: StopIteration) -> None:
        super().__init__(str(error))
        self.error = error


class HostOp:
    """A linked op. Operand values come in its order: inputs, the boxes of captures, the variables of writes."""

    __slots__ = (
        "_callees",
        "_captures",
        "_code",
        "_deep",
        "_inputs",
        "_is_sure",
        "_is_text",
        "_looked",
        "_may_change",
        "_moved",
        "_opened",
        "_outputs",
        "_outside",
        "_owner",
        "_prefix",
        "_quick_names",
        "_variants",
        "_writes",
        "awaits",
        "is_pure",
    )

    def __init__(self, op: Op, owner: FunctionType) -> None:
        """Raises SyntaxError for code that Python does not accept."""
        self._owner = owner
        self._prefix = private_prefix(owner.__qualname__)
        self._code: HostCode = parse(op)
        self._inputs: tuple[str, ...] = tuple(op.attrs["inputs"])
        self._captures: tuple[str, ...] = tuple(op.attrs.get("captures") or ())
        self._writes: tuple[str, ...] = tuple(op.attrs.get("writes") or ())
        self._outputs: tuple[str, ...] = tuple(op.attrs.get("outputs") or ())
        self._variants: dict[frozenset[str], tuple[Result, Any]] = {}
        shadowed = {*owner.__globals__, *owner.__code__.co_freevars, *self._captures}
        self._callees = Callees()
        names = outside_names(op, self._code.body, shadowed, self._is_harmless)
        is_slow = names is None or op.attrs.get("outer")
        self._outside = None if is_slow else [n for n in names or () if n not in self._captures]
        self.awaits = self._code.awaits
        is_open = self._outside is not None or op.attrs.get("outer") or self._captures or self.awaits
        self._deep = None if is_open else read_outside(self._code.body, self._inputs, self._held)
        self.is_pure = op.attrs.get("pure") is not None
        self._may_change = may_change(self._code.body)
        self._is_sure = self._code.result(_NONE) in ("value", "tuple")
        uses = Uses.of(self._code.body, self._inputs, shadowed)
        self._looked = [n for n, name in enumerate(self._inputs) if name in uses.looked]
        self._moved = [n for n, name in enumerate(self._inputs) if name not in uses.looked]
        self._opened = [n for n, name in enumerate(self._inputs) if name in uses.opened]
        has_calls = bool(self._callees.found)
        self._is_text = [
            self._code.is_expression and _is_text(self._code.expression, calls) for calls in (has_calls, True)
        ]
        self._variant(_NONE)

    def is_quick(self, values: Sequence[Any]) -> bool:
        """Whether the op, on these operands, can run on the loop thread. Prompts must have arrived."""
        if self._outside is None or self._captures or self.awaits:
            return False
        if not (
            are_plain([values[n] for n in self._looked], (Prompt,))
            and are_plain([values[n] for n in self._moved], (Reading, Branches))
        ) or any(isinstance(values[n], Reading) for n in self._opened):
            return False
        if self._callees.found and not self._callees.are_same():
            return False
        return not self._outside or are_plain((self._look_up(name) for name in self._outside), (Prompt,))

    def is_text(self, values: Sequence[Any]) -> bool:
        """Whether the value, if there is one, is a str; operands that were put off may arrive as Expressions."""
        return self._is_text[any(isinstance(value, PendingObject) for value in values)]

    def _is_harmless(self, called: ast.expr, inside: set[str]) -> bool:
        own = {*inside, *self._captures, *self._owner.__code__.co_freevars}
        return self._callees.take(called, self._owner.__globals__, own)

    @property
    def is_known(self) -> bool:
        """Whether the code does nothing but what can be seen of it."""
        return self.is_quick_code or self._deep is not None

    @property
    def is_quick_code(self) -> bool:
        """Whether the code is quick, or a pure tool."""
        return self.is_pure or self._outside is not None

    def outside_values(self) -> list[Any]:
        """What the names from outside hold now that the code reads, as far as that is known."""
        return [*(self._look_up(name) for name in self._outside or ()), *still_read(self._deep or ())]

    @property
    def reads_outside(self) -> bool:
        """Whether names from outside, which may be given another value, mean something in the code."""
        return bool(self._outside or self._callees.found)

    @property
    def is_recorded(self) -> bool:
        """Whether a recording of the run holds what the code gives: it may do more than compute, as far as is known."""
        return not (self.is_known or self._captures or self.awaits)

    @property
    def owner(self) -> FunctionType:
        """The Python function that the code comes from."""
        return self._owner

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the variables that a block gives."""
        return self._outputs

    def inputs(self, values: Sequence[Any]) -> Sequence[Any]:
        """The operands that are its inputs."""
        return values[: len(self._inputs)]

    def replace(self, values: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Have the variables of writes hold these outputs instead."""
        if self._writes:
            given = dict(zip(self._outputs, outputs, strict=False))
            for name, variable in zip(self._writes, values[-len(self._writes) :], strict=True):
                variable.value = given.get(name, variable.value)

    @property
    def can_wait(self) -> bool:
        """Whether the op may be put off, going by its code: all its outputs are assigned, nothing else is."""
        return self.is_quick_code and self._is_sure and not (self._captures or self._writes or self.awaits)

    def may_await(self, values: Sequence[Any], awaited: tuple[type, ...]) -> bool:
        """Whether the op may wait for those of its operands that have not arrived.

        What it looks into has to be of a type among `awaited`. What it only passes on may hold states.
        """
        return all(type(values[n]) in awaited for n in (*self._looked, *self._opened) if isinstance(values[n], Pending))

    def held(self, values: Sequence[Any], order: Order) -> Reached | None:
        """What the op may reach, going by the operands that are there; None when it must not be put off.

        It must not look into a state, now or when its turn has come. What is held already was looked through when it
        was, and only tasks have changed it since.
        """
        known = () if order.with_states else order.known
        looked = reach(self._there(values, self._looked, self._outside or ()), known, MAX_LOOKED_AT)
        moved = reach(self._there(values, self._moved), known, MAX_LOOKED_AT)
        if looked is None or moved is None or looked.has_states or not order.with_states.isdisjoint(looked.mutable):
            return None
        if any(isinstance(values[n], Reading) for n in self._opened):
            return None
        has_states = (
            moved.has_states
            or not order.with_states.isdisjoint(moved.mutable)
            or any(isinstance(values[n], PendingObject) and not values[n].is_plain for n in self._moved)
        )
        return Reached(looked.mutable | moved.mutable, has_states)

    def is_free(self, values: Sequence[Any]) -> bool:
        """Whether the op can reach nothing that may change, on these operands."""
        reached = reach([*values, *self._there((), (), self._outside or ())])
        return reached is not None and not reached.mutable

    def _there(self, values: Sequence[Any], numbers: Sequence[int], outside: Sequence[str] = ()) -> list[Any]:
        """The operands of these numbers that have arrived, and what names from outside hold."""
        arrived = [values[n] for n in numbers if not isinstance(values[n], Pending)]
        return arrived if self.is_pure else [*arrived, *map(self._look_up, outside)]

    def commutes(self, values: Sequence[Any], order: Order) -> bool:
        """Whether the op, which is quick on these operands, can run before what was put off earlier."""
        if order.holds_unknown and self.reads_outside:
            return False
        inputs = values[: len(self._inputs)]
        reached = reach([*inputs, *map(self._look_up, self._outside or ())], order.known)
        if reached is None or not reached.mutable:
            return reached is not None
        return not (self._may_change or order.holds(reached.mutable))

    def why_not_harmless(self, values: Sequence[Any]) -> str | None:
        """What in the code may do more than compute from these operands; None when nothing does."""
        if self.awaits:
            return "an `await`"
        shared = dict(zip(self._captures, values[len(self._inputs) :], strict=False))
        knows_calls = self._outside is not None and self._callees.are_same()
        given = [None if type(value) is Unbound else value for value in values]
        return why_not_harmless(
            self._code.body, self._inputs, given, self._held, shared=shared, knows_calls=knows_calls
        )

    def holds_state(self, values: Sequence[Any]) -> bool:
        """Whether the code, on these operands, may read a state, which may have to wait for an answer."""
        return holds_state(values)

    def _held(self, name: str) -> Any:
        """An outside name's value now. Raises NoValue."""
        value = self._look_up(name)
        if value is _MISSING:
            raise NoValue
        return value

    def _look_up(self, name: str) -> Any:
        """An outside name's value now; a value of no plain type when it has none."""
        if name in self._owner.__code__.co_freevars:
            try:
                return cell_of_free_variable(self._owner, name).cell_contents
            except ValueError:
                return _MISSING
        return self._owner.__globals__.get(name, _MISSING)

    def __call__(self, values: Sequence[Any]) -> Any:
        """Run the code: the value of an expression; for a block the list of outputs, then signal and returned value.

        What the code raises goes through as it is, save StopIteration, which comes as Escaped.
        """
        result, function, arguments = self._prepare(values)
        try:
            return self._give(result, function(*arguments), arguments)
        except StopIteration as error:
            raise Escaped(error) from None
        except NameError as error:
            local = self._as_local(error, function.__code__)
            if local is None:
                raise
        finally:
            self._write(values, arguments)
        _raise_as_if_first(local)

    async def awaited(self, values: Sequence[Any]) -> Any:
        """The same for code that awaits."""
        result, function, arguments = self._prepare(values)
        try:
            return self._give(result, await function(*arguments), arguments)
        except NameError as error:
            local = self._as_local(error, function.__code__)
            if local is None:
                raise
        finally:
            self._write(values, arguments)
        _raise_as_if_first(local)

    def _prepare(self, values: Sequence[Any]) -> tuple[Result, FunctionType, list[Any]]:
        """The function to call for these operands, what it gives, and its arguments."""
        inputs = list(values[: len(self._inputs)])
        missing = [name for name, value in zip(self._inputs, inputs, strict=True) if type(value) is Unbound]
        result, function = self._variant(frozenset(missing) if missing else _NONE)
        if self._captures:
            boxes = dict(zip(self._captures, values[len(inputs) :], strict=False))
            function = self._enclosed(function.__code__, boxes)
        return result, function, [*inputs, {}] if result == "saved" else inputs

    def _write(self, values: Sequence[Any], arguments: Sequence[Any]) -> None:
        """Put what the code has assigned so far into the variables of writes."""
        if self._writes:
            assigned = arguments[-1]
            for name, variable in zip(self._writes, values[-len(self._writes) :], strict=True):
                variable.value = assigned[name] if name in assigned else Unbound(name)

    def _as_local(self, error: NameError, code: CodeType) -> NameError | None:
        """What the program's own function would raise: boxes are free variables here, but its own there."""
        entry = error.__traceback__
        while entry is not None and entry.tb_next is not None:
            entry = entry.tb_next
        for name in [mangled(name, self._prefix) for name in self._captures]:
            if entry is not None and entry.tb_frame.f_code is code and str(error) == _FREE.format(name):
                local = Unbound(name).error()
                local.__context__ = error.__context__
                return local.with_traceback(error.__traceback__)
        return None

    def _give(self, result: Result, returned: Any, arguments: Sequence[Any]) -> Any:
        """The op's results, from what the function returned and, of saved ones, left in its last argument."""
        if result == "value":
            return returned
        if result == "tuple":
            return list(returned)
        if result == "locals":
            return self._outputs_of(returned)
        outputs = self._outputs_of(arguments[-1])
        return [*outputs, *returned] if self._code.has_signals else outputs

    def _outputs_of(self, local_values: dict[str, Any]) -> list[Any]:
        names = [mangled(name, self._prefix) for name in self._outputs]
        return [local_values[name] if name in local_values else Unbound(name) for name in names]

    def _variant(self, unbound: frozenset[str]) -> tuple[Result, Any]:
        """The function for inputs of which some have no value; compiled at its first use."""
        variant = self._variants.get(unbound)
        if variant is None:
            result = self._code.result(unbound)
            code = compile_host(self._code, self._owner, unbound, result)
            # With captures this one only holds the code: each run encloses it in its own boxes.
            boxes = {name: CellType() for name in self._captures}
            variant = self._variants[unbound] = (result, self._enclosed(code, boxes))
        return variant

    def _enclosed(self, code: Any, boxes: dict[str, Any]) -> FunctionType:
        owner = self._owner
        named = {mangled(name, self._prefix): box for name, box in boxes.items()}
        cells = tuple(named[name] if name in named else cell_of_free_variable(owner, name) for name in code.co_freevars)
        return FunctionType(code, owner.__globals__, owner.__name__, None, cells)


def _raise_as_if_first(error: Exception) -> NoReturn:
    """Raise an exception that stands for another, with the `__context__` that it has been given."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context


# Methods of a str that give one.
_TEXT_METHODS = {
    "join", "strip", "lstrip", "rstrip", "lower", "upper", "title", "capitalize", "removeprefix", "removesuffix",
    "replace", "format",
}  # fmt: skip


def _is_text(node: ast.expr, calls: bool) -> bool:
    """Whether the expression, if it has a value at all, is a str. calls: whether it calls what may give an Expression,
    which can be added to a str; what else it uses, once it has arrived, is no Expression.
    """
    match node:
        case ast.JoinedStr() | ast.Constant(value=str()):
            return True
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            found = [_is_text(left, calls), _is_text(right, calls)]
            return all(found) if calls else any(found)
        case ast.Call(func=ast.Attribute(value=base, attr=method)) if method in _TEXT_METHODS:
            return _is_text(base, calls)
    return False
