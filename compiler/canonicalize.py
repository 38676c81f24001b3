"""Pass `canonicalize`: constant texts appended one after the other become one append; empty ones go."""

from __future__ import annotations

from ..ir.core import Module, Op, Region, Value
from .rewrite import replace_uses, use_counts


def canonicalize(module: Module) -> None:
    """Fuse constant appends, in place."""
    for function in module.functions.values():
        defined = {result: op for op in function.body.walk() for result in op.results}
        counts = use_counts(function.body)
        for op in list(function.body.walk()):
            if (text := _constant_text(op, defined)) is not None:
                _fuse(function.body, op, text, defined, counts)


def _constant_text(op: Op | None, defined: dict[Value, Op]) -> str | None:
    """The text that an op appends, when it is a constant."""
    if op is None or op.name != "prompt.append":
        return None
    source = defined.get(op.operands[1])
    text = source.attrs["value"] if source is not None and source.name == "py.const" else None
    return text if isinstance(text, str) else None


def _fuse(body: Region, op: Op, text: str, defined: dict[Value, Op], counts: dict[Value, int]) -> None:
    """Make `op` append its own text and that of the append before it, or drop it when its text is empty."""
    before = op.operands[0]
    if text == "":
        replace_uses(body, op.result, before)
        counts[before] += counts[op.result]
        counts[op.result] = 0
        return
    first = defined.get(before)
    earlier = _constant_text(first, defined)
    if earlier is None or first is None or counts[before] != 1:
        return
    constant = Op("py.const", [], [Value(op.operands[1].type)], {"value": earlier + text}, span=op.span)
    _insert_before(body, op, constant)
    defined[constant.result] = constant
    op.operands = [first.operands[0], constant.result]
    if first.span is not None and op.span is not None:
        op.span = first.span.merge(op.span)
    counts[before] = 0


def _insert_before(region: Region, op: Op, new: Op) -> bool:
    if op in region.ops:
        region.ops.insert(region.ops.index(op), new)
        return True
    return any(_insert_before(inner, op, new) for other in region.ops for inner in other.regions)
