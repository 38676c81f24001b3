"""The order in which rows begin where a batch is larger than what runs at once: those with equal beginnings together.

Which of its arguments a program's prompts take up, and in which order, the pass `plan_prefixes` has told; by the texts
of these, rows are sorted as the paths of a prefix tree, depth first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ir.core import Module
from ..runtime.effects import is_plain
from .arguments import Arguments


def depth_first(module: Module, rows: Sequence[Arguments]) -> list[int] | None:
    """The numbers of the rows in the order in which they should begin; None where the pass was left out."""
    plans = [op.attrs["plan"] for op in module.walk() if "plan" in op.attrs]
    if not plans:
        return None
    names = module.functions[module.entry].param_names
    places = [names.index(name) for name in dict.fromkeys(name for plan in plans for name in plan)]

    def beginning(row: int) -> list[str]:
        values = rows[row].with_state(None)
        return [_text(values[place]) for place in places]

    return sorted(range(len(rows)), key=beginning)


def _text(value: Any) -> str:
    """What a prompt may hold of a value; nothing of what is no plain one, which could do anything when it is asked."""
    if type(value) is str:
        return value
    return repr(value) if is_plain(value) else ""
