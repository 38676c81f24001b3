"""What passes share: finding and replacing the uses of a value, taking ops out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

from ..ir.core import Op, Region, Value

T = TypeVar("T")


def uses(region: Region, value: Value) -> Iterator[tuple[Op, int]]:
    """Each use of a value in a region and below: the op and the operand's index."""
    for op in region.walk():
        for index, operand in enumerate(op.operands):
            if operand is value:
                yield op, index


def regions(body: Region) -> Iterator[Region]:
    """A region and all regions below it."""
    yield body
    for op in body.walk():
        yield from op.regions


def closure(starts: Iterable[T], beyond: Callable[[T], Iterable[T]]) -> set[T]:
    """These, what lies right beyond each, and so on."""
    found: set[T] = set()
    left = list(starts)
    while left:
        each = left.pop()
        if each not in found:
            found.add(each)
            left += beyond(each)
    return found


def use_counts(region: Region) -> Counter[Value]:
    """How often each value is used in a region and below."""
    return Counter(operand for op in region.walk() for operand in op.operands)


def replace_uses(region: Region, old: Value, new: Value) -> None:
    """Use `new` wherever `old` is used."""
    for op in region.walk():
        if old in op.operands:
            op.operands = [new if operand is old else operand for operand in op.operands]


def remove_ops(region: Region, dead: Collection[Op]) -> None:
    """Take ops out of a region and the regions below; their results must be unused."""
    gone = {id(op) for op in dead}
    region.ops = [op for op in region.ops if id(op) not in gone]
    for op in region.ops:
        for inner in op.regions:
            remove_ops(inner, dead)
