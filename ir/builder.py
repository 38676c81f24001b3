"""A cursor that appends ops to a region: the front end and the tests write IR through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from .core import Attr, Op, Region, Value
from .ops import OPS
from .span import Span
from .types import CELL, OBJ, PROMPT, TEXT, Type

_RESULT_TYPES = {"prompt": PROMPT, "text": TEXT, "obj": OBJ, "cell": CELL}


class Builder:
    """Appends ops to `region`, each with the current `span`."""

    def __init__(self, region: Region, span: Span | None = None) -> None:
        self.region = region
        self.span = span

    def op(
        self,
        name: str,
        operands: Iterable[Value] = (),
        /,
        *,
        results: Sequence[Type] | None = None,
        hints: Sequence[str] = (),
        regions: Sequence[Region] = (),
        **attrs: Attr,
    ) -> Op:
        """Append an op; result types come from the declaration unless `results` gives them."""
        if results is None:
            declared = OPS[name].results
            results = [_RESULT_TYPES[each] for each in declared.split(", ") if each]
        names = [*hints, *[""] * (len(results) - len(hints))]
        values = [Value(type_, hint) for type_, hint in zip(results, names, strict=True)]
        kept = {key: value for key, value in attrs.items() if value is not None or key == "value"}
        made = Op(name, list(operands), values, kept, list(regions), self.span)
        self.region.ops.append(made)
        return made

    def value(self, name: str, /, *operands: Value, hint: str = "", **attrs: Attr) -> Value:
        """Append an op with exactly one result and return that."""
        return self.op(name, operands, hints=(hint,) if hint else (), **attrs).result

    @contextmanager
    def inside(self, region: Region) -> Iterator[Region]:
        """Append to another region for a while."""
        outer, self.region = self.region, region
        try:
            yield region
        finally:
            self.region = outer

    @property
    def terminated(self) -> bool:
        """Whether the current region already ends in a terminator."""
        return bool(self.region.ops) and OPS[self.region.ops[-1].name].terminator
