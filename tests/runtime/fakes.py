"""A deterministic model without weights, a toy detokenizer, and helpers that run an engine by hand.

The model keeps (token id, position) as the KV of a token. Its logits are a hash of the history that a row reads through
the batch's extents, in the order of positions; so a wrong write or read gives other tokens than `next_logits` of the
true history, and a token that is read twice or not at all is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ramify.runtime.batch import Batch
from ramify.runtime.engine import Engine
from ramify.runtime.kv_file import ModelIdentity
from ramify.runtime.pool import KVLayout
from ramify.runtime.request import Delta, Done, EngineRequest, Event, Failed, SamplingParams

LAYOUT = KVLayout(1, 1, 2, torch.float64, torch.device("cpu"))


@dataclass
class FakeConfig:
    vocab_size: int = 29
    context_length: int = 200


def next_logits(history: Sequence[int], vocab_size: int) -> np.ndarray:
    """The fake model's logits after a history of token ids."""
    state = 17
    for token in history:
        state = (state * 1_000_003 + int(token) + 1) % (1 << 61)
    return np.random.default_rng(state).normal(size=vocab_size) * 2


@dataclass
class FakeModel:
    """Counts its steps and rows; `fail_on` raises for a batch, `poison` gives NaN to rows with such a history.

    Its hidden states are its logits.
    """

    config: FakeConfig = field(default_factory=FakeConfig)
    layout: KVLayout = LAYOUT
    identity: ModelIdentity = ModelIdentity("fake", "1")  # noqa: RUF009 (frozen)
    rows: list[int] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    fail_on: Callable[[Batch], bool] = lambda batch: False
    poison: Callable[[list[int]], bool] = lambda history: False

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.logits(self.hidden(batch))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    def hidden(self, batch: Batch) -> torch.Tensor:
        self.rows.append(batch.token_ids.numel())
        self.batches.append(batch)
        if self.fail_on(batch):
            raise RuntimeError("the fake model was told to fail")
        batch.check()
        kv = torch.stack([batch.token_ids, batch.positions], dim=1).double()
        for write in batch.writes:
            rows = kv[write.start : write.stop]
            write.extent.keys(0)[0, write.offset : write.offset + len(rows)] = rows
        logits = [self._logits(_history(batch, row)) for row in batch.logit_rows.tolist()]
        return torch.from_numpy(np.array(logits, dtype=np.float32).reshape(-1, self.config.vocab_size))

    def _logits(self, history: list[int]) -> np.ndarray:
        nan = np.full(self.config.vocab_size, np.nan)
        return nan if self.poison(history) else next_logits(history, self.config.vocab_size)


@dataclass
class RepeatingModel(FakeModel):
    """Says mostly what its last token makes likely, so that it soon repeats itself; how often it says something else
    is up to the whole history, by `surprise`.
    """

    surprise: float = 0.2

    def _logits(self, history: list[int]) -> np.ndarray:
        size = self.config.vocab_size
        return next_logits(history[-1:], size) + self.surprise * super()._logits(history)


def _history(batch: Batch, row: int) -> list[int]:
    seen = []
    for read in batch.reads:
        for start, stop in read.rows:
            if start <= row < stop:
                length = read.length - (stop - 1 - row) if read.causal else read.length
                seen += read.extent.keys(0)[0, :length].tolist()
    seen.sort(key=lambda pair: pair[1])
    assert [position for _, position in seen] == list(range(len(seen))), f"row {row} reads {seen}"
    return [int(token) for token, _ in seen]


class ToyStream:
    """Token t is the letter chr(97 + t), later ones too; 26 and 27 are the two bytes of "é", 28 has no text."""

    def __init__(self) -> None:
        self._held = False

    def step(self, token_id: int, /) -> str:
        held, self._held = self._held, token_id == 26
        if token_id == 27:
            return "é" if held else "�"
        return ("�" if held else "") + ("" if token_id in (26, 28) else chr(97 + token_id))

    def flush(self) -> str:
        held, self._held = self._held, False
        return "�" if held else ""


def toy_decode(token_ids: Sequence[int]) -> str:
    stream = ToyStream()
    return "".join(stream.step(token) for token in token_ids) + stream.flush()


@dataclass(eq=False)
class Call:
    """A request with the events it got."""

    request: EngineRequest
    events: list[Event]

    @property
    def ended(self) -> bool:
        return bool(self.events) and not isinstance(self.events[-1], Delta)

    @property
    def done(self) -> Done:
        """The last event; checks that it came once and that what was streamed is what it says."""
        last = self.events[-1]
        if isinstance(last, Failed):
            raise last.error
        assert isinstance(last, Done), f"unfinished: {self.events}"
        deltas = [event for event in self.events[:-1] if isinstance(event, Delta)]
        assert len(deltas) == len(self.events) - 1
        assert "".join(delta.text for delta in deltas) == last.text
        assert tuple(token for delta in deltas for token in delta.token_ids) == last.token_ids
        if self.request.score_from is None:
            assert tuple(one for delta in deltas for one in delta.logprobs) == last.logprobs
        return last

    @property
    def error(self) -> BaseException:
        """Why it failed; it must be the only event after the streamed ones."""
        last = self.events[-1]
        assert isinstance(last, Failed), f"it did not fail: {last}"
        assert all(isinstance(event, Delta) for event in self.events[:-1])
        return last.error


def call(tokens: Sequence[int], score_from: int | None = None, embed_from: int | None = None, **params: Any) -> Call:
    events: list[Event] = []
    sampling = SamplingParams(**params)
    request = EngineRequest(list(tokens), sampling, events.append, score_from, embed_from=embed_from)
    return Call(request, events)


def new_engine(model: Any = None, **options: Any) -> Engine:
    settings: dict[str, Any] = {"kv_tokens": 1000, "check": True, **options}
    return Engine(FakeModel() if model is None else model, ToyStream, **settings)


def finish(engine: Engine, *calls: Call, limit: int = 5000) -> list[Done]:
    """Submits the calls together and steps until all is done."""
    for one in calls:
        engine.submit(one.request)
    for _ in range(limit):
        if not engine.step():
            return [one.done for one in calls if not isinstance(one.events[-1], Failed)]
    raise AssertionError(f"not idle after {limit} steps: {engine.stats()}")


def expected_tokens(prompt: Sequence[int], count: int, vocab_size: int = 29) -> tuple[int, ...]:
    """The greedy continuation by the fake model's definition."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(next_logits(tokens, vocab_size).astype(np.float32).argmax()))
    return tuple(tokens[len(prompt) :])
