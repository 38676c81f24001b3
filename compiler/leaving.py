"""How `return`, `break` and `continue` leave: through what ends on the way, up to the loop, try or function around."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir.core import Region, Value

if TYPE_CHECKING:
    from .lowering import Lowering


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop around: the names of the variables that it carries; `finished` is the one that a break makes False."""

    names: Sequence[str]
    finished: str | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """Something around that ends however it is left, save by an exception: `end` lowers that."""

    end: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Try:
    """A flow.try around, which ends when it is left. kinds: what it is left for."""

    kinds: set[str]


Around = Loop | Ending | Try


def leave(low: Lowering, kind: str, value: Value | None = None) -> None:
    """Lower a "return" of the value, "break" or "continue" at this place."""
    for around in reversed(low.around):
        if isinstance(around, Ending):
            around.end()
        elif isinstance(around, Try):
            around.kinds.add(kind)
            low.builder.op("flow.leave", [value] if kind == "return" and value is not None else [], kind=kind)
            return None
        elif kind != "return":
            if kind == "break" and around.finished is not None:
                low.env[around.finished] = low.builder.value("py.const", value=False)
            return end_region(low, f"flow.{kind}", around.names)
    assert value is not None
    low.builder.op("flow.return", [value])
    return None


def leave_if(low: Lowering, how: Value, kind: str, value: Value) -> None:
    """Lower leaving in that way if this is how an op before has ended."""
    condition = low.expression_op(f"__how == {kind!r}", [], {"__how": how})
    yes, no = Region(), Region()
    low.builder.op("flow.if", [condition], results=(), regions=[yes, no])
    with low.region(yes):
        leave(low, kind, value)
    with low.region(no):
        low.builder.op("flow.yield")


def unreachable(low: Lowering) -> None:
    """End a region whose end is never reached."""
    nothing = low.builder.value("py.const", value=None)
    if any(isinstance(around, Try) for around in low.around):
        low.builder.op("flow.leave", [nothing], kind="return")
    else:
        low.builder.op("flow.return", [nothing])


def end_region(low: Lowering, terminator: str, names: Sequence[str]) -> None:
    """End a region by passing on the variables' values."""
    low.builder.op(terminator, [low.lookup(name) for name in names])
