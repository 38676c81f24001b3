"""Which ops may ask the model: those of the model, and appends of what may be an expression that host code has made."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..ir.core import Module, Op, Value
from ..ir.types import TEXT

MODEL_OPS = ("lm.gen", "lm.select", "lm.score")


def asking(module: Module) -> Iterator[Op]:
    """All ops of a module that may ask the model."""
    defined = definitions(module)
    return (op for op in module.walk() if may_ask(op, defined))


def definitions(module: Module) -> dict[Value, Op]:
    """Which op each result is of."""
    return {result: op for op in module.walk() for result in op.results}


def may_ask(op: Op, defined: dict[Value, Op]) -> bool:
    """Whether an op may ask the model. defined: which op each result is of."""
    if op.name == "prompt.append":
        content = op.operands[1]
        return content.type != TEXT and not _is_text(defined.get(content))
    return op.name in MODEL_OPS


def _is_text(op: Op | None) -> bool:
    """Whether what an op gives is a text, if it has a value at all."""
    if op is None or op.name not in ("py.const", "py.expr"):
        return False
    if op.name == "py.const":
        return isinstance(op.attrs["value"], str)
    code = ast.parse(f"(\n{op.attrs['code']}\n)", mode="eval").body
    return op.attrs.get("pure") == "text" or isinstance(code, ast.JoinedStr)
