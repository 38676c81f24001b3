"""Pass `reorder`: the rows of a batch put first what they share, inside `unordered()` only.

Which texts rows share is only known when they are there, so the pass marks the groups and runtime/arranging.py decides.
It is told the constant texts: later batches share these, too.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ir.core import Function, Module
from .asking import definitions


def reorder(module: Module) -> None:
    """Mark all unordered groups, in place."""
    for function in module.functions.values():
        groups = [op for op in function.body.walk() if op.name == "prompt.group"]
        constants = list(dict.fromkeys(_constants(module, function))) if groups else []
        for op in groups:
            op.attrs = op.attrs | {"reorder": True} | ({"constants": constants} if constants else {})


def _constants(module: Module, function: Function) -> Iterator[str]:
    """The constant texts that are items of unordered groups."""
    defined = definitions(module)
    for op in function.body.walk():
        made = defined.get(op.operands[0]) if op.name == "prompt.item" else None
        if made is None or made.name != "prompt.append":
            continue
        content = defined.get(made.operands[1])
        if content is not None and content.name == "py.const" and isinstance(content.attrs["value"], str):
            yield content.attrs["value"]
