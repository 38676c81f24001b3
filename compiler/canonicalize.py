"""Pass `canonicalize`: constant texts appended one after the other become one append; empty ones go."""

from __future__ import annotations

from ..ir.core import Module, Op, Region, Value
from .rewrite import remove_ops, replace_uses, use_counts


def canonicalize(module: Module) -> None:
    """Fuse constant appends, in place."""
    for function in module.functions.values():
        dead: list[Op] = []
        _fuse_region(function.body, function.body, dead)
        remove_ops(function.body, dead)


def _fuse_region(body: Region, region: Region, dead: list[Op]) -> None:
    defined = {result: op for op in body.walk() for result in op.results}
    counts = use_counts(body)
    fused: list[Op] = []
    for op in region.ops:
        text = _constant_text(op, defined)
        before = defined.get(op.operands[0]) if text is not None else None
        earlier = _constant_text(before, defined)
        if text == "":
            counts[op.operands[0]] += counts[op.result] - 1
            replace_uses(body, op.result, op.operands[0])
            dead.append(op)
        elif text is not None and earlier is not None and before is not None and counts[op.operands[0]] == 1:
            constant = Op("py.const", [], [Value(op.operands[1].type)], {"value": earlier + text}, span=op.span)
            constant.inlined = op.inlined
            defined[constant.result] = constant
            fused.append(constant)
            op.operands = [before.operands[0], constant.result]
            if before.span and op.span and before.inlined == op.inlined:
                op.span = before.span.merge(op.span)
            dead.append(before)
        fused.append(op)
        for inner in op.regions:
            _fuse_region(body, inner, dead)
    region.ops = fused


def _constant_text(op: Op | None, defined: dict[Value, Op]) -> str | None:
    """The text that an op appends, when it is a constant."""
    if op is None or op.name != "prompt.append":
        return None
    source = defined.get(op.operands[1])
    text = source.attrs["value"] if source is not None and source.name == "py.const" else None
    return text if isinstance(text, str) else None
