"""Hidden states of many prompts at once: asked of the engine together, and waited for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import Cancelled, RamifyError, RequestError, UsageError
from ..runtime.backend import Pooling
from ..runtime.engine import Engine
from ..runtime.pending import Pending
from ..runtime.request import Done, EngineRequest, Event, Failed, SamplingParams

_NOTHING = SamplingParams(max_tokens=0)


def embedded(
    engine: Engine, prompts: Sequence[list[int]], pooling: Pooling, start: int, hidden_size: int
) -> NDArray[np.float32]:
    """The hidden states of prompts of token ids, (len(prompts), hidden_size), in their order; waits for them.

    What ends the wait early, as Ctrl-C does, cancels them. Raises what the first that failed raised, which names the
    prompt's number; UsageError for a pooling that there is not.
    """
    asked = Embedded(engine, prompts, pooling, start, hidden_size)
    try:
        asked.begin()
        asked.ended.wait()
    except BaseException:
        asked.cancel()
        raise
    return asked.found


def _check_pooling(pooling: Pooling, start: int) -> None:
    if pooling not in get_args(Pooling):
        raise UsageError(f"there is no pooling {pooling!r}", help=_POOLING)
    if type(start) is not int:
        raise TypeError(f"start is a number of tokens (int), not {start!r}")
    if pooling == "last" and start:
        raise UsageError(f"start={start} says nothing with pooling='last'", help=_POOLING)


_POOLING = "it is 'last', the last token, or 'mean', over all tokens from number `start` on"


def _first(number: int, token_ids: list[int], pooling: Pooling, start: int) -> int:
    """The first token of a prompt whose hidden state counts."""
    if not token_ids:
        raise RequestError(f"prompt {number} is empty", help="give it some text")
    if pooling == "last":
        return len(token_ids) - 1
    if not 0 <= start < len(token_ids):
        raise RequestError(f"start={start} is outside prompt {number}, which has {len(token_ids)} tokens")
    return start


class Embedded:
    """Requests for hidden states, as `embedded` makes them. found: (n, hidden_size), whole when `ended` is done."""

    def __init__(
        self, engine: Engine, prompts: Sequence[list[int]], pooling: Pooling, start: int, hidden_size: int
    ) -> None:
        _check_pooling(pooling, start)
        firsts = [_first(number, token_ids, pooling, start) for number, token_ids in enumerate(prompts)]
        self.found = np.empty((len(prompts), hidden_size), np.float32)
        self.ended: Pending[None] = Pending()
        self._engine = engine
        self._lock = threading.Lock()
        self._missing = len(prompts)
        self._requests = [
            EngineRequest(token_ids, _NOTHING, partial(self._take, number), embed_from=first, wants_deltas=False)
            for number, (token_ids, first) in enumerate(zip(prompts, firsts, strict=True))
        ]

    def begin(self) -> None:
        """Ask the engine."""
        if not self._requests:
            self.ended.set_result(None)
        for request in self._requests:
            self._engine.submit(request)

    def cancel(self) -> None:
        """Nobody waits any more."""
        for request in self._requests:
            self._engine.cancel(request)

    def _take(self, number: int, event: Event) -> None:
        """Take a prompt's event: on the engine's thread, or on the caller's if the engine is closed."""
        if isinstance(event, Failed):
            self._fail(number, event.error)
        elif isinstance(event, Done) and event.embedding is None:
            self._fail(number, Cancelled("its request was cancelled"))
        elif isinstance(event, Done):
            self.found[number] = event.embedding
            with self._lock:
                self._missing -= 1
                is_last = self._missing == 0
            if is_last:
                self.ended.set_result(None)

    def _fail(self, number: int, error: BaseException) -> None:
        if isinstance(error, RamifyError):
            error.message = f"prompt {number}: {error.message}"
        self.ended.set_error(error)
