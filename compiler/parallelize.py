"""Pass `parallelize`: host code that waits for a generation does not hold up what follows it.

Which operands have not arrived, and which objects two ops share, is only known when the program runs. So the pass marks
the ops that may be put off by what can be seen of them, and runtime/order.py keeps what could be noticed in program
order. Code that shares variables with nested functions, stands in a try or leaves a block is never put off.
"""

from __future__ import annotations

from ..ir.core import Module, Op
from ..ir.turns import keeps_states, split_turn

_HOST_CODE = ("py.expr", "py.block")


def parallelize(module: Module) -> None:
    """Mark the host code that may be put off, and where a loop's turn may be left behind, in place."""
    for op in module.walk():
        if op.name in _HOST_CODE and _may_be_put_off(op):
            op.attrs = op.attrs | {"ahead": True}
    if keeps_states(module):
        for op in module.walk():
            if op.name == "flow.for" and split_turn(op.regions[0]) is not None:
                op.attrs = op.attrs | {"apart": True}


def _may_be_put_off(op: Op) -> bool:
    return bool(op.operands) and not any(op.attrs.get(name) for name in ("captures", "writes", "signals"))
