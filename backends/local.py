"""The local backend: a model directory, its tokenizer and the engine, in this process.

Prompts become token ids here (runtime/prompt_tokens.py); long texts are tokenized off the loop. The engine's events
come to the loop many at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from ..ir.errors import UsageError
from ..runtime.backend import Chat, Sink
from ..runtime.chat import DEFAULT_CHAT
from ..runtime.engine import Engine, EngineStats
from ..runtime.features import SAMPLING
from ..runtime.hostpool import host_pool
from ..runtime.loop import loop, post
from ..runtime.models import load_model
from ..runtime.pending import Pending
from ..runtime.prompt import Prompt
from ..runtime.prompt_tokens import PromptTokens
from ..runtime.request import Delta, Done, EngineRequest, Event, Failed, SamplingParams, TokenLogprob
from ..runtime.tokens import TextRun, Tokenizer

# Texts longer than this many characters are tokenized on a host thread.
_LONG = 4_000


class LocalBackend:
    """Runs a model of Hugging Face layout on the GPU if there is one, else on the CPU.

    dtype: None is the checkpoint's. kv_tokens: how many tokens of KV are kept; None is sized by the free memory. check:
    verify the engine's accounting whenever it is idle. Raises ModelError for a directory that cannot be loaded.
    """

    features = SAMPLING | {"select"}

    def __init__(
        self,
        model_dir: str | Path,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        kv_tokens: int | None = None,
        max_running: int = 256,
        chunk_tokens: int = 512,
        prefix_cache: bool = True,
        check: bool = False,
    ) -> None:
        directory = Path(model_dir)
        if not directory.is_dir():
            raise UsageError(f"there is no model directory {str(directory)!r}")
        self.name = f"local:{directory.name}"
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.tokenizer = Tokenizer.load(directory)
        self.chat: Chat = self.tokenizer.chat or DEFAULT_CHAT
        self.model = load_model(directory, dtype=dtype, device=self.device)
        self.tokens = PromptTokens(self.tokenizer)
        self.engine = Engine(
            self.model,
            self.tokenizer.decode_stream,
            kv_tokens=kv_tokens,
            max_running=max_running,
            chunk_tokens=chunk_tokens,
            prefix_cache=prefix_cache,
            eos_token_ids=self.tokenizer.eos_ids,
            check=check,
        )
        self.engine.start()

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Sink) -> _Generation:
        """See Backend."""
        generation = _Generation(self.engine, params, sink)
        self._tokenize(prompt, generation)
        return generation

    def select(self, prompt: Prompt, choices: Sequence[str], method: str, sink: Sink) -> _Selection:
        """See Backend. Done.logprobs has one entry per choice: its index and the mean log-probability of its tokens."""
        selection = _Selection(self.engine, self.tokens, prompt, choices, sink)
        self._tokenize(prompt, selection)
        return selection

    def stats(self) -> EngineStats:
        """What the engine is doing and has done."""
        return self.engine.stats()

    def clear_cache(self) -> None:
        """Drop all cached KV that nothing running uses."""
        self.engine.clear_cache()

    def close(self) -> None:
        """See Backend."""
        self.engine.close()

    def _tokenize(self, prompt: Prompt, request: _Generation | _Selection) -> None:
        work = self.tokens.prepare(prompt)
        if work.num_characters <= _LONG:
            request.begin(work.run())
        else:
            host_pool().submit(work.run).add_callback(request.tokenized)


class _Request(ABC):
    """A request on its way: tokenized, then in the engine; `cancel` is good at any time."""

    def __init__(self, engine: Engine, sink: Sink) -> None:
        self.engine = engine
        self.sink = sink
        self.is_over = False
        self.sent: list[EngineRequest] = []

    def tokenized(self, pending: Pending[list[int]]) -> None:
        """The prompt's tokens have come from a host thread."""
        if self.is_over:
            return
        if pending.error is not None:
            self.end(Failed(pending.error))
        else:
            self.begin(pending.result())

    @abstractmethod
    def begin(self, token_ids: list[int]) -> None:
        """Go on with the prompt's tokens."""

    def submit(self, request: EngineRequest) -> None:
        self.sent.append(request)
        self.engine.submit(request)

    def cancel(self) -> None:
        """See Handle."""
        post(self._cancel)

    def _cancel(self) -> None:
        if self.is_over:
            return
        if not self.sent:
            self.end(Done("", (), "cancelled"))
        for request in self.sent:
            self.engine.cancel(request)

    def end(self, event: Done | Failed) -> None:
        """Send the last event."""
        if not self.is_over:
            self.is_over = True
            self.sink(event)


class _Generation(_Request):
    def __init__(self, engine: Engine, params: SamplingParams, sink: Sink) -> None:
        super().__init__(engine, sink)
        self._params = params
        self._wants_deltas = sink.wants_deltas

    def begin(self, token_ids: list[int]) -> None:
        self.submit(EngineRequest(token_ids, self._params, self._on_engine))

    def _on_engine(self, event: Event) -> None:
        """Take an event on the engine's thread."""
        if self._wants_deltas or not isinstance(event, Delta):
            loop().soon(self._take, event)

    def _take(self, event: Event) -> None:
        if isinstance(event, Delta):
            if not self.is_over:
                self.sink(event)
        else:
            self.end(event)


class _Selection(_Request):
    """One score request per choice, of the tokens that differ from the prompt's own."""

    def __init__(
        self, engine: Engine, tokens: PromptTokens, prompt: Prompt, choices: Sequence[str], sink: Sink
    ) -> None:
        super().__init__(engine, sink)
        self._tokens = tokens
        self._prompt = prompt
        self._choices = choices
        self._scored: dict[int, Done] = {}

    def begin(self, token_ids: list[int]) -> None:
        known = self._prompt.tokens
        for index, choice in enumerate(self._choices):
            run: TextRun = self._tokens.tokenizer.extend(known.run, choice)
            whole = [*known.ids, *run.ids]
            first = max(1, _common_length(token_ids, whole))
            if first == len(whole):  # a lone first token: nothing before it to judge it by
                self._take(index, Done("", (), "stop"))
                continue
            self.submit(
                EngineRequest(whole, SamplingParams(max_tokens=0), partial(self._on_engine, index), score_from=first)
            )

    def _on_engine(self, index: int, event: Event) -> None:
        """Take an event on the engine's thread."""
        if not isinstance(event, Delta):
            loop().soon(self._take, index, event)

    def _take(self, index: int, event: Done | Failed) -> None:
        if self.is_over:
            return
        if isinstance(event, Failed):
            self.end(event)
            for request in self.sent:
                self.engine.cancel(request)
            return
        self._scored[index] = event
        if len(self._scored) == len(self._choices):
            self.end(self._chosen([self._scored[number] for number in range(len(self._choices))]))

    def _chosen(self, scored: list[Done]) -> Done:
        if any(done.finish_reason == "cancelled" for done in scored):
            return Done("", (), "cancelled")
        scores = [_mean_logprob(done) for done in scored]
        best = max(range(len(scores)), key=scores.__getitem__)
        return Done(
            self._choices[best],
            (),
            "stop",
            logprobs=tuple(TokenLogprob(index, score) for index, score in enumerate(scores)),
            prompt_tokens=sum(done.prompt_tokens for done in scored),
            cached_tokens=sum(done.cached_tokens for done in scored),
            queue_ms=max(done.queue_ms for done in scored),
            wall_ms=max(done.wall_ms for done in scored),
        )


def _mean_logprob(done: Done) -> float:
    if not done.logprobs:
        return float("-inf")
    return sum(each.logprob for each in done.logprobs) / len(done.logprobs)


def _common_length(left: Sequence[int], right: Sequence[int]) -> int:
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return index
    return min(len(left), len(right))
