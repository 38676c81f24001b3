"""Equal requests are answered once: a greedy or seeded generation is a function of its tokens and parameters.

A Sharing belongs to one run, or to all rows of a batch. The first request of a kind leads and goes to the engine; equal
ones that come while it runs, or later, get its answer. Everything here happens on the loop thread.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Protocol

from .arranging import Arranger
from .request import Done, Failed, SamplingParams

# Answers that are kept; the oldest go first.
MAX_ANSWERS = 16_384


class Asking(Protocol):
    """A request that may be answered by an equal one."""

    def ask(self) -> None:
        """Go to the engine."""

    def answered(self, done: Done) -> None:
        """Take the answer of an equal request."""


class Sharing:
    """The answers so far, and who waits for which. arranger: what orders the unordered groups of a batch's rows."""

    def __init__(self, arranger: Arranger | None = None) -> None:
        self.arranger = arranger
        self._waiting: dict[Hashable, list[Asking]] = {}
        self._answers: dict[Hashable, Done] = {}

    def enter(self, key: Hashable, request: Asking) -> None:
        """Answer a request, now or later, or have it ask the engine."""
        done = self._answers.get(key)
        if done is not None:
            request.answered(_shared(done))
        elif key in self._waiting:
            self._waiting[key].append(request)
        else:
            self._waiting[key] = []
            request.ask()

    def settle(self, key: Hashable, event: Done | Failed) -> None:
        """The request that leads has ended. If it brought no answer, the next in line asks."""
        waiting = self._waiting.pop(key)
        if isinstance(event, Done) and event.finish_reason != "cancelled":
            self._answers[key] = event
            if len(self._answers) > MAX_ANSWERS:
                del self._answers[next(iter(self._answers))]
        for request in waiting:
            self.enter(key, request)


def is_deterministic(params: SamplingParams) -> bool:
    """Whether tokens and parameters alone decide the result. Functions of the user's may do anything."""
    return (params.temperature == 0 or params.seed is not None) and not params.processors


def _shared(done: Done) -> Done:
    """An answer as it is for those who did not cause it: nothing was computed for them."""
    return replace(done, cached_tokens=done.prompt_tokens, generated_tokens=0, shared=True)
