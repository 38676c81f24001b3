"""Steps of the whole engine for benchmarks/gpu.py: scheduler, batch, model, sampler and detokenizer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import torch
from ramify.backends.tiny import model_dir
from ramify.runtime.batch import Batch
from ramify.runtime.engine import Engine
from ramify.runtime.kv_file import ModelIdentity
from ramify.runtime.models import Model, ModelConfig
from ramify.runtime.output import TextStream
from ramify.runtime.pool import KVLayout
from ramify.runtime.request import EngineRequest, Event, Failed, SamplingParams
from ramify.runtime.tokens import Tokenizer

from .clock import Clock
from .report import median

PROMPT = 128
# Steps before those that count, in which graphs are made.
_SETTLED = 14
GREEDY: dict[str, Any] = {"temperature": 0.0}
DRAWN: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95}


class TimedModel:
    """A model, and how long the device was in its forward passes."""

    def __init__(self, model: Model, clock: Clock) -> None:
        self.config, self.layout, self.identity = model.config, model.layout, model.identity
        self._model = model
        self._clock = clock
        self.spans: list[Callable[[], float]] = []

    def forward(self, batch: Batch) -> torch.Tensor:
        """See LanguageModel."""
        with self._clock.span() as seconds:
            logits = self._model.forward(batch)
        self.spans.append(seconds)
        return logits


class NoModel:
    """Logits that are there already: all that is left of a step is the engine."""

    identity = ModelIdentity("none", "1")

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self.config = config
        self.layout = KVLayout(1, 1, 8, torch.bfloat16, device)
        self._logits = torch.randn(256, config.vocab_size, device=device)
        self.spans: list[Callable[[], float]] = []

    def forward(self, batch: Batch) -> torch.Tensor:
        """See LanguageModel. At most 256 rows want logits."""
        return self._logits[: len(batch.logit_rows)]


class _Stream:
    """Text of the embedded model's tokens, which stand for those of a larger vocabulary."""

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        self._stream = tokenizer.decode_stream()
        self._size = size

    def step(self, token_id: int, /) -> str:
        return self._stream.step(token_id % self._size)

    def flush(self) -> str:
        return self._stream.flush()


def decode_steps(
    model: TimedModel | NoModel, running: int, steps: int, sampling: dict[str, Any], *, shared: int = 0, **options: Any
) -> dict[str, float]:
    """Seconds of a step of so many running requests (`step`), and of the model in it (`forward`).

    Prompts are of random tokens, `shared` that all have and 128 of their own. Both are medians over `steps` steps in
    a row. options: of the engine.
    """
    new = _SETTLED + steps + 16
    engine = _engine(model, shared + running * (PROMPT + new + 1), running, options)
    events: list[Event] = []
    for tokens in _prompts(running, shared, model.config.vocab_size):
        params = SamplingParams(max_tokens=new, ignore_eos=True, seed=1, **sampling)
        engine.submit(EngineRequest(tokens, params, events.append))
    scheduler: Any = engine._scheduler
    while len(scheduler.running) < running or scheduler.is_prefilling:
        engine.step()
    for _ in range(_SETTLED):
        engine.step()
    model.spans.clear()
    seconds = []
    for _ in range(steps):
        begun = time.perf_counter()
        engine.step()
        seconds.append(time.perf_counter() - begun)
    failed = [event.error for event in events if isinstance(event, Failed)]
    assert not failed, failed[0]
    assert len(scheduler.running) == running, "a request ended while steps were measured"
    forward = [span() for span in model.spans]
    engine.close()
    return {"step": median(seconds), "forward": median(forward or [0.0])}


def _engine(model: Any, room: int, running: int, options: dict[str, Any]) -> Engine:
    tokenizer = Tokenizer.load(model_dir())
    size = tokenizer.vocab_size

    def stream(*_: Any) -> TextStream:
        return _Stream(tokenizer, size)

    return Engine(model, stream, kv_tokens=room, max_running=running, chunk_tokens=8192, step_seconds=None, **options)


def _prompts(count: int, shared: int, vocab_size: int) -> list[list[int]]:
    draw = random.Random(3)
    prefix = [draw.randrange(16, vocab_size) for _ in range(shared)]
    return [prefix + [draw.randrange(16, vocab_size) for _ in range(PROMPT)] for _ in range(count)]
