"""Tells a backend what a program may ask for next, so that it can compute the beginning ahead (`hint.warm`).

Nothing of it can be noticed: no event is told, no error raised, nothing waited for. What was told of a branch is taken
back when the branch's next request is sent, and all of it when the run ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

from ..ir.errors import RamifyError
from .backend import Prefiller
from .loop import post
from .pending import Pending
from .prompt import Prompt
from .request import Done

if TYPE_CHECKING:
    from .context import Context

Part = str | Mapping[str, str]


def warm(prompt: Prompt, parts: Sequence[Part], *, is_open: bool, is_brief: bool) -> None:
    """Tell the backend that a request may come that begins so, once all of the prompt has arrived. Thread-safe.

    If the first part is a choice, the prompt is one behind a choice that may turn out to be that; then it need not have
    arrived. is_open, is_brief: see Prefiller.
    """
    base = prompt
    if parts and isinstance(parts[0], dict) and "choice" in parts[0]:
        assert prompt.kind == "select" and prompt.parent is not None
        base = prompt.parent
    blocker = base.arrived()
    begin = partial(_begin, prompt, base, parts, is_open, is_brief)
    if blocker is None:
        post(begin)
    else:
        blocker.add_callback(lambda done: None if done.error else post(begin))


def outside(python: FunctionType, name: str) -> Any:
    """What a name from outside means in a function now; None if nothing."""
    if name not in python.__code__.co_freevars:
        return python.__globals__.get(name)
    assert python.__closure__ is not None
    try:
        return python.__closure__[python.__code__.co_freevars.index(name)].cell_contents
    except ValueError:  # it is not assigned yet
        return None


def _begin(prompt: Prompt, base: Prompt, parts: Sequence[Part], is_open: bool, is_brief: bool) -> None:
    context = prompt.context
    choosing: Pending[Done] | None = None if base is prompt else prompt.value.pending
    if context.cancelled is not None or context.owner.is_over or (choosing is not None and _is_other(choosing, parts)):
        return
    grown = base
    try:
        for part in parts:
            grown = _with_part(grown, part)
    except RamifyError:
        return  # messages do not stand like that: the program will be told when it does the same
    backend = cast(Prefiller, context.backend)
    handle = backend.prefill(grown, is_open=is_open, is_brief=is_brief)
    context.told_ahead.setdefault(prompt.branch, []).append(handle)
    if choosing is not None:
        choosing.add_callback(lambda done: handle.cancel() if _is_other(done, parts) else None)


def _is_other(choosing: Pending[Done], parts: Sequence[Part]) -> bool:
    """Whether another choice was made than the one that is supposed, or none."""
    supposed = cast(Mapping[str, str], parts[0])["choice"]
    return choosing.done and (choosing.error is not None or choosing.result().text != supposed)


def take_back(context: Context, branch: tuple[int, ...]) -> None:
    """A branch goes on: what was told of it has come, or never will. On the loop thread."""
    for handle in context.told_ahead.pop(branch, ()):
        handle.cancel()


def _with_part(prompt: Prompt, part: Part) -> Prompt:
    """A prompt that nobody hears of."""
    if isinstance(part, str):
        return Prompt(prompt.context, prompt, "text", part)
    if "choice" in part:
        return Prompt(prompt.context, prompt, "select", Supposed(part["choice"]))
    return prompt.with_mark(part["role"], part["mark"])


class Supposed:
    """Stands for a choice that may be made."""

    def __init__(self, text: str) -> None:
        self.done = Done(text, (), "stop")
