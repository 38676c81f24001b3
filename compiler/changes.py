"""What each pass of the pipeline changes in a module, as unified diffs of its text."""

from __future__ import annotations

import difflib
import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from ..ir.core import Module, clone
from ..ir.printer import Names, print_module
from .pipeline import PIPELINE, run_pipeline

_CONTEXT_LINES = 2


@dataclass(frozen=True, slots=True)
class Change:
    """What a pass did: the lines of a diff without its two heads; none where the text stayed the same."""

    name: str
    summary: str
    elapsed_ms: float
    diff: list[str]


def changes(module: Module, disable: Collection[str] = ()) -> list[Change]:
    """One change for each pass that is not disabled, in order. The module stays as it is. Raises as run_pipeline does.

    A value keeps its name from the first text to the last, so that only what a pass changed differs.
    """
    run_pipeline(module, disable=disable)
    names: defaultdict[str, Names] = defaultdict(Names)
    changed = clone(module)
    before = print_module(changed, names=names).splitlines()
    found = []
    for each in PIPELINE:
        if each.name in disable:
            continue
        started = time.perf_counter()
        each.run(changed)
        elapsed_ms = (time.perf_counter() - started) * 1000
        after = print_module(changed, names=names).splitlines()
        diff = list(difflib.unified_diff(before, after, n=_CONTEXT_LINES, lineterm=""))[2:]
        found.append(Change(each.name, each.summary, elapsed_ms, diff))
        before = after
    return found
