"""Pass `canonicalize`: constant texts that are put together or appended one after the other become one; empty ones go.

Stores that are overwritten before anybody can look go too, so that the texts may be those of several statements, and
behind `inline` those of a caller and of what it calls.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from ..ir.core import Module, Op, Region, Value
from .rewrite import regions, remove_ops, replace_uses, use_counts


def canonicalize(module: Module) -> None:
    """Fold and fuse constant texts, in place."""
    for function in module.functions.values():
        _fold_texts(function.body)
        dead = _overwritten_stores(function.body)
        remove_ops(function.body, dead)
        dead.clear()
        _fuse_region(function.body, function.body, dead)
        remove_ops(function.body, dead)


def _fold_texts(body: Region) -> None:
    """Give expressions that only put constants together into a text their value, and trust it to be a text."""
    constants: dict[Value, object] = {}
    checked: list[Op] = []
    for op in body.walk():
        if op.name == "py.const":
            constants[op.result] = op.attrs["value"]
        elif op.name == "py.expr" and constants.keys() >= set(op.operands) and not op.attrs.get("captures"):
            known = dict(zip(op.attrs["inputs"], (constants[value] for value in op.operands), strict=True))
            text = _text(_parsed(op), known)
            if text is not None:
                op.name, op.operands, op.attrs = "py.const", [], {"value": text}
                constants[op.result] = text
        elif op.name == "prompt.part" and isinstance(constants.get(op.operands[0]), str):
            checked.append(op)
    remove_ops(body, checked)


def _parsed(op: Op) -> ast.expr:
    return ast.parse(f"(\n{op.attrs['code']}\n)", mode="eval").body


def _text(node: ast.expr, known: Mapping[str, object]) -> str | None:
    """The text that an expression gives, if it does nothing but put known values together."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.Name(id=name) if isinstance(value := known.get(name), str):
            return value
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _joined([_text(left, known), _text(right, known)])
        case ast.JoinedStr(values=parts):
            return _joined([_formatted(part, known) for part in parts])
    return None


def _formatted(part: ast.expr, known: Mapping[str, object]) -> str | None:
    """A part of an f-string."""
    match part:
        case ast.FormattedValue(value=ast.Name(id=name), conversion=-1, format_spec=None) if name in known:
            value = known[name]
            return format(value) if value is None or type(value) in (bool, int, float) else _text(part.value, known)
        case ast.FormattedValue(value=inner, conversion=-1, format_spec=None):
            return _text(inner, known)
    return _text(part, known)


def _joined(parts: list[str | None]) -> str | None:
    texts = [part for part in parts if part is not None]
    return "".join(texts) if len(texts) == len(parts) else None


def _overwritten_stores(body: Region) -> list[Op]:
    """Stores to cells that others follow before anybody can look: nothing in between may fail, or wait."""
    defined = {result: op for op in body.walk() for result in op.results}
    found: list[Op] = []
    for region in regions(body):
        last: dict[Value, Op] = {}
        for op in region.ops:
            if op.name == "cell.store":
                found += [last[op.operands[0]]] if op.operands[0] in last else []
                last[op.operands[0]] = op
            elif op.name not in ("py.const", "py.default") and _constant_text(op, defined) is None:
                last.clear()
    return found


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
