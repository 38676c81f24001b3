"""What is known of a program's calls from its IR alone: where they stand, and in which loops and branches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..ir.core import Module, Op, Region
from ..ir.span import Span

_MODEL_OPS = {"lm.gen": "gen", "lm.select": "select", "lm.score": "score"}
_IN_HOST_CODE = re.compile(r"\b(gen|select|score)\(")
_AROUND = {"flow.for": "for", "flow.while": "while", "flow.if": "if", "flow.try": "try"}


@dataclass(frozen=True, slots=True)
class Outlined:
    """A generation, choice or score of the source, or a part that runs as Python.

    around: what it stands in, from outside to inside, such as ("for", "if"); function: the function of the module.
    """

    kind: str
    name: str | None
    span: Span | None
    function: str
    around: tuple[str, ...]
    max_tokens: int | None = None


def outline(module: Module) -> list[Outlined]:
    """All calls of the module, in its order; what looks the same, as in a function that is inlined twice, only once."""
    found = (each for name, function in module.functions.items() for each in _of_region(function.body, name, ()))
    return list(dict.fromkeys(found))


def _of_region(region: Region, function: str, around: tuple[str, ...]) -> Iterator[Outlined]:
    for op in region.ops:
        home = op.inlined[0].callee if op.inlined else function
        if op.name in _MODEL_OPS:
            yield _outlined(op, _MODEL_OPS[op.name], home, around)
        elif op.name in ("py.expr", "py.block"):
            for kind in _IN_HOST_CODE.findall(op.attrs["code"]):
                yield Outlined(kind, None, op.span, home, around)
        elif op.name == "py.call":
            yield Outlined("python", op.attrs["callee"], op.span, home, around)
        inside = (*around, _AROUND[op.name]) if op.name in _AROUND else around
        for inner in op.regions:
            yield from _of_region(inner, function, inside)


def _outlined(op: Op, kind: str, function: str, around: tuple[str, ...]) -> Outlined:
    params = op.attrs.get("params") or {}
    max_tokens = params.get("max_tokens")
    return Outlined(
        kind, op.attrs.get("name"), op.span, function, around, max_tokens if isinstance(max_tokens, int) else None
    )
