"""The op table of docs/ir.md, made from the declarations in `ops.py`."""

from __future__ import annotations

from .ops import OPS, OpDef


def op_table() -> str:
    """The ops as a Markdown table, one row each, in the order of their declaration."""
    rows = ["| op | operands | results | attributes | meaning |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*rows, *(_row(declaration) for declaration in OPS.values())])


def _row(declaration: OpDef) -> str:
    attributes = ", ".join(f"`{name}: {kind}`" for name, kind in declaration.attrs.items())
    cells = [f"`{declaration.name}`", declaration.operands, declaration.results.replace("*", "\\*"), attributes]
    return f"| {' | '.join([*cells, declaration.doc + _notes(declaration)])} |"


def _notes(declaration: OpDef) -> str:
    notes = ["terminator"] if declaration.terminator else []
    if declaration.regions:
        notes.append("1 region" if declaration.regions == 1 else f"{declaration.regions} regions")
    return f" ({', '.join(notes)})" if notes else ""
