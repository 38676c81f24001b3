"""The compiler's pipeline: every pass in its order, with its name, its switch and its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ..ir.core import Module, clone
from ..ir.errors import UsageError, nearest
from ..ir.verify import verify
from .canonicalize import canonicalize
from .constrain import constrain
from .cse import cse
from .dce import dce
from .inline import inline
from .lifetimes import lifetimes
from .parallelize import parallelize
from .plan_prefixes import plan_prefixes
from .promote import promote
from .reorder import reorder
from .speculate import speculate


@dataclass(frozen=True, slots=True)
class Pass:
    """A function that rewrites a module in place without changing what it means."""

    name: str
    run: Callable[[Module], None]
    summary: str


PIPELINE = (
    Pass("inline", inline, "functions take the place of their calls, where that is no great loss of room"),
    Pass("promote", promote, "states that do not escape become prompt values"),
    Pass("canonicalize", canonicalize, "constant texts that stand in a row become one"),
    Pass("constrain", constrain, "arguments of requests that are constant are looked at once"),
    Pass("dce", dce, "what nobody can notice is dropped"),
    Pass("cse", cse, "equal requests are answered once"),
    Pass("lifetimes", lifetimes, "KV that the program goes on from is kept"),
    Pass("plan_prefixes", plan_prefixes, "what requests share is computed once, depth first, as far as memory goes"),
    Pass("reorder", reorder, "rows of a batch put first what they share, where any order will do"),
    Pass("parallelize", parallelize, "what waits for a generation does not hold up what follows"),
    Pass("speculate", speculate, "what may be asked for next is prefilled where nothing else is to do"),
)


def run_pipeline(
    module: Module,
    *,
    after: str | None = None,
    disable: Collection[str] = (),
    on_pass: Callable[[Pass, Module, float], None] | None = None,
) -> Module:
    """A copy of the module after the pipeline, or after the pass named `after`; "frontend" means after none.

    The result is verified, and where it is wrong every pass's, to tell which it was. `on_pass` gets the pass, the
    module and the milliseconds it took. Raises UsageError for a name that is no pass, VerifyError, which names the
    pass, when one breaks the module.
    """
    check_names(disable)
    if after != "frontend":
        check_names([after] if after else [])
    verify(module, after="frontend")
    passes = [] if after == "frontend" else _until(after)
    passes = [each for each in passes if each.name not in disable]
    changed = clone(module)
    try:
        for each in passes:
            started = time.perf_counter()
            each.run(changed)
            elapsed_ms = (time.perf_counter() - started) * 1000
            if on_pass is not None:
                on_pass(each, changed, elapsed_ms)
        if passes:
            verify(changed, after=passes[-1].name)
    except Exception:
        _blame(clone(module), passes)
        raise
    return changed


def _until(last: str | None) -> list[Pass]:
    """The passes up to the one of that name; all of them for None."""
    names = [each.name for each in PIPELINE]
    return list(PIPELINE[: len(names) if last is None else names.index(last) + 1])


def _blame(module: Module, passes: list[Pass]) -> None:
    """Raises VerifyError, which names the pass, if one of them breaks the module; what one raises gets a note of it."""
    for each in passes:
        try:
            each.run(module)
        except Exception as error:
            error.add_note(f"in the pass `{each.name}`")
            raise error from None
        verify(module, after=each.name)


def check_names(names: Collection[str]) -> None:
    """Raises UsageError for a name that is no pass."""
    known = [each.name for each in PIPELINE]
    for name in names:
        if name not in known:
            raise UsageError(f"there is no pass {name!r}", help=nearest(str(name), known, "the passes are"))
