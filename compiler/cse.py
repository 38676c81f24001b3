"""Pass `cse`: generations, choices and scores may take the answer of an equal request.

Which requests are equal is only known when they are made, by their tokens, so the pass marks the ops and
runtime/sharing.py merges: within a run, and among the rows of a batch. Only what tokens and parameters alone decide is
merged: greedy or seeded generations, without functions of the user's.
"""

from __future__ import annotations

from ..ir.core import Module
from .asking import asking


def cse(module: Module) -> None:
    """Mark all ops that may ask the model, in place."""
    for op in asking(module):
        op.attrs = op.attrs | {"share": True}
