"""Grammars that note what constraints cost the engine's thread, and what is computed beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from ramify.runtime.constraint import Constraint
from ramify.runtime.matcher import Grammars, Matcher, Vocabulary
from torch import Tensor


@dataclass
class Clock:
    """Seconds. waited: for masks, after the forward pass. followed: applying them, taking tokens, finding forced ones.

    beside: computing masks, on their own thread.
    """

    waited: float = 0.0
    followed: float = 0.0
    beside: float = 0.0


class Watched(Grammars):
    """Grammars with a clock, which may be replaced at any time."""

    def __init__(self, vocabulary: Vocabulary, num_tokens: int) -> None:
        super().__init__(vocabulary, num_tokens)
        self.clock = Clock()

    def begin(self, matchers: Sequence[Matcher | None]) -> Future[Tensor]:
        masks = super().begin(matchers)
        result: Callable[[], Tensor] = masks.result

        def wait() -> Tensor:
            begun = time.perf_counter()
            bits = result()
            self.clock.waited += time.perf_counter() - begun
            return bits

        masks.result = wait  # type: ignore[method-assign, assignment]
        return masks

    def fill(self, matchers: Sequence[Matcher | None]) -> Tensor:
        begun = time.perf_counter()
        bits = super().fill(matchers)
        self.clock.beside += time.perf_counter() - begun
        return bits

    def allowed(self, bits: Tensor, device: torch.device) -> Tensor:
        begun = time.perf_counter()
        mask = super().allowed(bits, device)
        self.clock.followed += time.perf_counter() - begun
        return mask

    def matcher(self, constraint: Constraint, stop_ids: Sequence[int] = ()) -> Matcher:
        made = super().matcher(constraint, stop_ids)
        return _WatchedMatcher(self, constraint, made.inner, made.end_ids)


class _WatchedMatcher(Matcher):
    """A matcher that notes what it costs to follow a generation."""

    grammars: Watched

    def consume(self, token_id: int) -> None:
        begun = time.perf_counter()
        super().consume(token_id)
        self.grammars.clock.followed += time.perf_counter() - begun

    def forced(self) -> list[int]:
        begun = time.perf_counter()
        token_ids = super().forced()
        self.grammars.clock.followed += time.perf_counter() - begun
        return token_ids
