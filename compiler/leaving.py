"""How `return`, `break` and `continue` leave: through the marks to end on the way, up to the loop or the function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir.core import Value

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


Around = Loop | Ending


def leave(low: Lowering, kind: str, value: Value | None = None) -> None:
    """Lower a "return" of the value, "break" or "continue" at this place."""
    for around in reversed(low.around):
        if isinstance(around, Ending):
            around.end()
        elif kind != "return":
            if kind == "break" and around.finished is not None:
                low.env[around.finished] = low.builder.value("py.const", value=False)
            return end_region(low, f"flow.{kind}", around.names)
    assert value is not None
    low.builder.op("flow.return", [value])
    return None


def unreachable(low: Lowering) -> None:
    """End a region whose end is never reached."""
    low.builder.op("flow.return", [low.builder.value("py.const", value=None)])


def end_region(low: Lowering, terminator: str, names: Sequence[str]) -> None:
    """End a region by passing on the variables' values."""
    low.builder.op(terminator, [low.lookup(name) for name in names])
