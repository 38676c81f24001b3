"""Pass `reorder`: the rows of a batch put first what they share, inside `unordered()` only.

Which texts rows share is only known when they are there, so the pass marks the groups and runtime/arranging.py decides.
"""

from __future__ import annotations

from ..ir.core import Module


def reorder(module: Module) -> None:
    """Mark all unordered groups, in place."""
    for op in module.walk():
        if op.name == "prompt.group":
            op.attrs = op.attrs | {"reorder": True}
