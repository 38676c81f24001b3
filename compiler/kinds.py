"""What a value holds, as far as states go: kinds, which form a lattice from "nothing" (known yet) up to "obj".

A list may be changed by whoever else holds it. So only what a variable holds, or an iterator gives, is a list here;
a list inside of a list or a tuple is an object like any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Literal

_MAX_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Many:
    """A list, a fork's group or an iterator, all items of which are of one kind."""

    item: Kind


@dataclass(frozen=True, slots=True)
class Each:
    """A tuple, with the kind of each of its items."""

    items: tuple[Kind, ...]


Kind = Literal["state", "obj", "nothing"] | Many | Each
STATES = Many("state")


def many(item: Kind) -> Kind:
    """The kind of a list with such items."""
    return Many(_inside(item))


def each(items: Iterable[Kind]) -> Kind:
    """The kind of a tuple of these."""
    return Each(tuple(map(_inside, items)))


def _inside(kind: Kind) -> Kind:
    return "obj" if isinstance(kind, Many) or _depth(kind) >= _MAX_DEPTH else kind


def _depth(kind: Kind) -> int:
    return 1 + max(map(_depth, kind.items), default=0) if isinstance(kind, Each) else 0


def join(kinds: Iterable[Kind]) -> Kind:
    """The kind of a value that may be of any of these."""
    return reduce(_join, kinds, "nothing")


def _join(left: Kind, right: Kind) -> Kind:
    match left, right:
        case "nothing", other:
            return other
        case other, "nothing":
            return other
        case Many(one), Many(other):
            return Many(_join(one, other))
        case Each(some), Each(others) if len(some) == len(others):
            return Each(tuple(map(_join, some, others)))
    return left if left == right else "obj"


def item_of(kind: Kind) -> Kind:
    """What iterating over it gives."""
    match kind:
        case Many(item):
            return item
        case Each(items):
            return join(items)
    return "nothing" if kind == "nothing" else "obj"


def part_of(kind: Kind, index: int, num_parts: int | None = None) -> Kind:
    """The item at an index, of so many if that is known."""
    if not isinstance(kind, Each):
        return item_of(kind)
    is_there = -len(kind.items) <= index < len(kind.items) and num_parts in (None, len(kind.items))
    return kind.items[index] if is_there else "obj"


def holds_state(kind: Kind) -> bool:
    """Whether there is a state in it."""
    match kind:
        case Many(item):
            return holds_state(item)
        case Each(items):
            return any(map(holds_state, items))
    return kind == "state"
