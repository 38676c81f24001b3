"""The local backend with a model that only counts, in lockstep with the programs: the same figures at every run.

A step of the engine is done when no program can go on without one, and its events are told one at a time, each when
what the last one set off has come to rest. So the order of requests does not depend on threads or on the machine's
load, and nobody comes late. Requests, KV and eviction are the real ones; the logits are drawn from a fixed table.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir
from ramify.runtime.batch import Batch
from ramify.runtime.engine import Engine
from ramify.runtime.hostpool import host_pool
from ramify.runtime.kv_file import ModelIdentity
from ramify.runtime.loop import loop, post
from ramify.runtime.pool import KVLayout
from ramify.runtime.request import Delta, EngineRequest, Event
from ramify.runtime.speculation import Expected

_NUM_LOGITS = 61
# How soon it is seen whether host threads have come to rest.
_POLL_SECONDS = 0.001


class CountingModel:
    """As many tokens as a real model, from one of a few rows of logits: that of the token and its position."""

    layout = KVLayout(1, 1, 1, torch.float32, torch.device("cpu"))
    identity = ModelIdentity("counting", "1")

    def __init__(self, config: Any) -> None:
        self.config = config
        generator = torch.Generator().manual_seed(5)
        self._logits = torch.randn(_NUM_LOGITS, config.vocab_size, generator=generator)

    def forward(self, batch: Batch) -> torch.Tensor:
        """See LanguageModel."""
        rows = batch.logit_rows
        return self._logits[(batch.token_ids[rows] * 31 + batch.positions[rows] * 7) % _NUM_LOGITS]


class LockstepEngine(Engine):
    """An engine that is stepped on the loop thread, whenever nothing else is to be done."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._told: deque[Callable[[], None]] = deque()
        self._is_due = False
        scheduler: Any = self._scheduler
        scheduler._holds_off = lambda: False  # whoever was about to come has come

    def start(self) -> None:
        """There is no thread."""

    def submit(self, request: EngineRequest) -> None:
        """See Engine."""
        request.sink = partial(self._hear, request.sink)
        super().submit(request)
        post(self._go_on)

    def prefill(self, expected: Expected) -> None:
        """Nothing is computed ahead: what that does depends on time."""

    def cancel(self, request: EngineRequest) -> None:
        """See Engine."""
        super().cancel(request)
        post(self._go_on)

    def _hear(self, sink: Callable[[Event], None], event: Event) -> None:
        if isinstance(event, Delta):
            sink(event)
        else:
            self._told.append(partial(sink, event))

    def _go_on(self) -> None:
        if not self._is_due:
            self._is_due = True
            loop().soon(self._advance)

    def _advance(self) -> None:
        # In this order: a host thread leaves its result to be called before it comes to rest.
        if not host_pool().is_quiet:
            loop().later(_POLL_SECONDS, self._advance)
            return
        if not loop().is_idle:
            loop().soon(self._advance)
            return
        self._is_due = False
        if self._told:
            self._told.popleft()()
            self._go_on()
        elif self._step_or_fail() or self._told:
            self._go_on()


class LockstepBackend(LocalBackend):
    """The embedded model's tokenizer and sizes, with the model that only counts and its engine."""

    def __init__(self, *, kv_tokens: int, host_kv_tokens: int = 0, check: bool = False) -> None:
        super().__init__(model_dir(), dtype=torch.float32, kv_tokens=1)
        self.engine.close()
        self.engine = LockstepEngine(
            CountingModel(self.model.config),
            self.tokenizer.decode_stream,
            kv_tokens=kv_tokens,
            host_kv_tokens=host_kv_tokens,
            step_seconds=None,  # chunks that depend on measured times would differ between runs
            eos_token_ids=self.tokenizer.eos_ids,
            grammars=self.grammars,
            check=check,
        )


@contextmanager
def one_host_thread() -> Iterator[None]:
    """Host code runs in the order in which it was asked for."""
    pool = host_pool()
    limit, pool.limit = pool.limit, 1
    try:
        yield
    finally:
        pool.limit = limit
