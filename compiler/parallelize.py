"""Pass `parallelize`: host code that waits for a generation does not hold up what follows it.

Which operands have not arrived, and which objects two ops share, is only known when the program runs. So the pass marks
the ops that may be put off by what can be seen of them, and runtime/order.py keeps what could be noticed in program
order. Code that shares variables with nested functions, stands in a try or leaves a block is never put off.
"""

from __future__ import annotations

from ..ir.core import Module, Op
from ..ir.parts import HOST_CODE, WAITING, Parts
from ..ir.turns import keeps_states, split_turn
from .rewrite import regions


def parallelize(module: Module) -> None:
    """Mark what may be put off, and where a loop's turn may be left behind, in place."""
    for op in module.walk():
        if op.name in HOST_CODE and _may_be_put_off(op):
            op.attrs = op.attrs | {"ahead": True}
    if not keeps_states(module):
        return
    for function in module.functions.values():
        parts = Parts(function, lambda _: False)
        for region in regions(function.body):
            for op in region.ops:
                if op.name in WAITING and parts.may_begin(op, region):
                    op.attrs = op.attrs | {"ahead": True}
                if op.name == "flow.for" and split_turn(op.regions[0]) is not None:
                    op.attrs = op.attrs | {"apart": True}


def _may_be_put_off(op: Op) -> bool:
    return bool(op.operands) and not any(op.attrs.get(name) for name in ("captures", "writes", "signals"))
