"""The local backend: a model directory, its tokenizer and the engine, in this process.

Prompts become token ids here (runtime/prompt_tokens.py); long texts are tokenized off the loop. The engine's events
come to the loop many at a time.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ..ir.errors import ModelError, RequestError, UsageError
from ..runtime.backend import Pooling, Sink
from ..runtime.chat import NO_TEMPLATE
from ..runtime.context import Context
from ..runtime.engine import STEP_SECONDS, Engine, EngineStats
from ..runtime.features import OWN
from ..runtime.hostpool import host_pool
from ..runtime.loop import loop, post
from ..runtime.matcher import Grammars
from ..runtime.models import Model, load_model
from ..runtime.models.adapters import read_adapter
from ..runtime.pending import Pending
from ..runtime.prompt import Prompt
from ..runtime.prompt_tokens import PromptTokens, Tokenization
from ..runtime.request import Delta, Done, EngineRequest, Event, Failed, SamplingParams, Scored, TokenLogprob
from ..runtime.scheduler import AdmissionOrder
from ..runtime.score_tree import Chain, Judged, ScoreTree
from ..runtime.speculation import Expected
from ..runtime.tokens import Tokenizer
from ..runtime.weight_format import WeightFormat, check_format
from . import directory_name
from .embedding import embedded
from .scoring import scored, to_judge

if TYPE_CHECKING:
    from ..runtime.models.hf.model import HFModel

# Texts longer than this many characters are tokenized on a host thread.
_LONG = 4_000
# For requests that generate nothing.
_NOTHING = SamplingParams(max_tokens=0)


class LocalBackend:
    """Runs a model of Hugging Face layout on the GPU if there is one, else on the CPU.

    dtype: None is the checkpoint's. weights: "int8" or "fp8" rounds those of the decoder's linear layers, which is
    approximate (docs/runtime.md). kv_tokens: how many tokens of KV are kept; None is sized by free memory.
    host_kv_tokens: of how many tokens host memory keeps what is evicted, which is meant for GPUs. order: "service"
    shares the engine fairly between programs. step_seconds: how long a step may take in which some decode while prompts
    are computed. lookup: whether what generations repeat is drafted where that is worth it (runtime/lookup.py), which
    in float32 gives the same tokens in fewer steps; None: in float32 on a CPU, where it was measured. adapters: folders
    of LoRA adapters in PEFT's format by the names that `gen(adapter=)` takes. check: verify the engine's accounting
    whenever idle. For the rest see Engine. Raises ModelError for a directory that cannot be loaded.
    """

    features = OWN | {"processors", "dtype", "prefill", "tools", "embed", "adapter"}

    def __init__(
        self,
        model_dir: str | Path,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        weights: WeightFormat | None = None,
        kv_tokens: int | None = None,
        host_kv_tokens: int = 0,
        max_running: int = 256,
        chunk_tokens: int = 512,
        prefix_cache: bool = True,
        order: AdmissionOrder = "prefix",
        step_seconds: float | None = STEP_SECONDS,
        lookup: bool | None = None,
        adapters: Mapping[str, str | Path] | None = None,
        check: bool = False,
    ) -> None:
        directory = Path(model_dir)
        if not directory.is_dir():
            raise UsageError(f"there is no model directory {str(directory)!r}")
        if dtype is not None and not isinstance(dtype, torch.dtype):
            raise UsageError(f"dtype is a torch.dtype such as torch.bfloat16, not {dtype!r}")
        check_format(weights)
        self.directory = directory.resolve()
        self.name = directory_name(directory, weights)
        self.weights = weights
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.tokenizer = Tokenizer.load(directory)
        self.chat = self.tokenizer.chat or NO_TEMPLATE
        self.model = load_model(directory, dtype=dtype, device=self.device, weights=weights, kv_tokens=kv_tokens)
        for name, folder in (adapters or {}).items():
            self.model.add_adapter(name, read_adapter(Path(folder), self.model.dtype, self.device))
        _check_tokenizer(self.tokenizer, self.model.config.vocab_size, directory)
        self.adapters = tuple(self.model.adapters)
        self.tokens = PromptTokens(self.tokenizer)
        self._tokenizing: dict[Prompt, Pending[list[EngineRequest]]] = {}
        self.grammars = Grammars(self.tokenizer, self.model.config.vocab_size)
        self.engine = Engine(
            self.model,
            self.tokenizer.decode_stream,
            kv_tokens=kv_tokens,
            host_kv_tokens=host_kv_tokens,
            max_running=max_running,
            chunk_tokens=chunk_tokens,
            prefix_cache=prefix_cache,
            order=order,
            step_seconds=step_seconds,
            eos_token_ids=self.tokenizer.eos_ids,
            grammars=self.grammars,
            adapters=self.model.adapters,
            lookup=_is_measured(self.model) if lookup is None else lookup,
            check=check,
        )
        self.engine.start()

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Sink) -> _Generation:
        """See Backend."""
        generation = _Generation(self.engine, self.tokenizer, self.grammars, params, sink)
        self._tokenize(prompt, generation)
        return generation

    def score(self, prompt: Prompt, texts: Sequence[str], sink: Sink, *, unconditional: bool = False) -> _Scoring:
        """See Scorer. What is scored of a text are the tokens that differ from the prompt's own."""
        scoring = _Scoring(self.engine, texts, unconditional, sink)
        self._tokenize(prompt, scoring)
        return scoring

    def prefill(self, prompt: Prompt, *, is_open: bool, is_brief: bool) -> _Prefill:
        """See Prefiller."""
        return _Prefill(self, prompt, is_open=is_open, is_brief=is_brief)

    def embed(
        self, prompts: Sequence[str | Prompt], *, pooling: Pooling = "last", start: int = 0
    ) -> NDArray[np.float32]:
        """See Embedder. A prompt that is a text is tokenized as one that a program begins with."""
        root = Context(self).root()
        nodes = [root.append_text(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
        token_ids = [self.tokens.prompt_tokens(node) for node in nodes]
        return embedded(self.engine, token_ids, pooling, start, self.model.config.hidden_size)

    def stats(self) -> EngineStats:
        """What the engine is doing and has done."""
        return self.engine.stats()

    def cached_len(self, token_ids: list[int]) -> int:
        """How many of these tokens, from the first on, are in the cache; see Engine."""
        return self.engine.cached_len(token_ids)

    def clear_cache(self) -> None:
        """Drop all cached KV that nothing running uses."""
        self.engine.clear_cache()

    def save_cache(self, path: str | Path, *, max_tokens: int | None = None) -> int:
        """Write what is cached to a file; see Engine. Returns how many tokens that are. Raises CacheError."""
        return self.engine.save_cache(path, max_tokens=max_tokens)

    def load_cache(self, path: str | Path) -> int:
        """Add a saved cache, if it is this model's; see Engine. Returns how many tokens were. Raises CacheError."""
        return self.engine.load_cache(path)

    def close(self) -> None:
        """See Backend."""
        self.engine.close()

    def _tokenize(self, prompt: Prompt, request: _Request) -> None:
        """Tokenize a prompt for a request that then goes on. On the loop thread."""
        under_way = self._tokenizing.get(prompt)
        if under_way is not None:  # for another sample of the same generation
            under_way.add_callback(lambda _: self._tokenize(prompt, request))
            return
        work = self.tokens.prepare(prompt)
        if work.num_characters + request.num_characters <= _LONG and request.is_quick:
            request.begin(request.encode(work))
            return
        encoded = self._tokenizing[prompt] = host_pool().submit(partial(request.encode, work))
        encoded.add_callback(lambda _: self._tokenizing.pop(prompt))
        encoded.add_callback(request.encoded)


def _is_measured(model: Model | HFModel) -> bool:
    """Whether drafts by lookup are known to gain and to change nothing: elsewhere rounding depends on a step's rows."""
    return isinstance(model, Model) and model.device.type == "cpu" and model.dtype == torch.float32


def _check_tokenizer(tokenizer: Tokenizer, vocab_size: int, directory: Path) -> None:
    """Raises ModelError for a tokenizer that is another model's."""
    if tokenizer.base_vocab_size > vocab_size:
        raise ModelError(
            f"{directory}: tokenizer.json has {tokenizer.base_vocab_size} tokens, the model's vocabulary {vocab_size}",
            help="they do not belong together; fetch the tokenizer's files of this model",
        )
    if tokenizer.eos_ids and min(tokenizer.eos_ids) >= vocab_size:
        raise ModelError(
            f"{directory}: eos_token_id is {min(tokenizer.eos_ids)}, the model's vocabulary has {vocab_size} tokens",
            help="correct generation_config.json or config.json; else no text would end",
        )


class _Prefill:
    """A prompt to compute ahead, unless it is cancelled before."""

    def __init__(self, backend: LocalBackend, prompt: Prompt, *, is_open: bool, is_brief: bool) -> None:
        self._engine = backend.engine
        encode = partial(_begin_of, backend.tokens, prompt, is_open)
        self._expected = Expected(encode, is_brief=is_brief, told_at=time.perf_counter())
        self._engine.prefill(self._expected)

    def cancel(self) -> None:
        """See Handle."""
        self._engine.cancel_prefill(self._expected)


def _begin_of(tokens: PromptTokens, prompt: Prompt, is_open: bool) -> list[int]:
    """The tokens with which a request begins that has this prompt; is_open: to which text may be added."""
    known = tokens.prepare(prompt).run(warns=False)
    return list(known.settled_ids) if is_open else known.token_ids


class _Request(ABC):
    """A request on its way: tokenized, then in the engine; `cancel` is good at any time.

    num_characters: of text of its own that is to be tokenized. is_quick: whether `encode` does nothing else that takes
    long.
    """

    num_characters = 0
    is_quick = True

    def __init__(self, engine: Engine, sink: Sink) -> None:
        self.engine = engine
        self.sink = sink
        self.is_over = False
        self.sent: list[EngineRequest] = []
        self._sharing = sink.sharing
        self._use = sink.use
        self._key: Hashable | None = None
        self._requests: list[EngineRequest] = []

    @abstractmethod
    def encode(self, work: Tokenization) -> list[EngineRequest]:
        """What to ask the engine for. On any thread."""

    def encoded(self, requests: Pending[list[EngineRequest]]) -> None:
        """The requests have come from a host thread."""
        if self.is_over:
            return
        if requests.error is not None:
            self.end(Failed(requests.error))
        else:
            self.begin(requests.result())

    def begin(self, requests: list[EngineRequest]) -> None:
        """Go on with the engine, unless an equal request is there to share its answer."""
        self._requests = requests
        if self._sharing is None:
            self.ask()
        else:
            self._key = self.key(requests)
            self._sharing.enter(self._key, self)

    def key(self, requests: list[EngineRequest]) -> Hashable:
        """What is the same for equal requests."""
        return tuple((tuple(each.token_ids), each.params, each.score_from) for each in requests)

    def ask(self) -> None:
        """Go to the engine."""
        if self.is_over:  # it was cancelled while it waited for an equal one
            self._settle(Done("", (), "cancelled"))
            return
        for request in self._requests:
            self.submit(request)

    def answered(self, done: Done) -> None:
        """Take the answer of an equal request."""
        if self.sink.wants_deltas and not self.is_over:
            self.sink(Delta(done.text, done.token_ids, done.logprobs))
        self.end(done)

    def _settle(self, event: Done | Failed) -> None:
        """Let those who wait for the same answer know."""
        if self._sharing is not None and self._key is not None:
            key, self._key = self._key, None
            self._sharing.settle(key, event)

    def submit(self, request: EngineRequest) -> None:
        request.use = self._use
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
        self._cancel_sent()

    def _cancel_sent(self) -> None:
        for request in self.sent:
            self.engine.cancel(request)

    def fail(self, event: Failed) -> None:
        """One of the requests has failed, and with it all."""
        self.end(event)
        self._cancel_sent()

    def end(self, event: Done | Failed) -> None:
        """Send the last event."""
        if not self.is_over:
            self.is_over = True
            self.sink(event)
            if self.sent:
                self._settle(event)


class _Generation(_Request):
    """A generation, and a score request for the prompt's own tokens if their log-probabilities were asked for."""

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, grammars: Grammars, params: SamplingParams, sink: Sink
    ) -> None:
        super().__init__(engine, sink)
        self._tokenizer = tokenizer
        self._grammars = grammars
        self._done: Done | None = None
        self._prompt_logprobs: tuple[TokenLogprob, ...] | None = () if params.logprob_start_len is None else None
        self._params = params
        self._wants_deltas = sink.wants_deltas
        self.is_quick = params.constraint is None or grammars.has(params.constraint)

    def encode(self, work: Tokenization) -> list[EngineRequest]:
        if self._params.constraint is not None:
            self._grammars.compile(self._params.constraint)  # here, since the engine would wait for it
        token_ids = work.run().token_ids
        requests = [EngineRequest(token_ids, self._params, self._on_engine, wants_deltas=self._wants_deltas)]
        start = self._params.logprob_start_len
        if start is not None:
            if start > len(token_ids):
                raise RequestError(f"logprob_start_len is {start}, and the prompt has {len(token_ids)} tokens")
            scoring = replace(_NOTHING, logprobs=self._params.logprobs, adapter=self._params.adapter)
            requests.append(EngineRequest(token_ids, scoring, self._on_prompt, score_from=max(1, start)))
        return requests

    def _on_engine(self, event: Event) -> None:
        """Take an event on the engine's thread."""
        loop().soon(self._take, event)

    def _on_prompt(self, event: Event) -> None:
        """Take the prompt's scores on the engine's thread."""
        if not isinstance(event, Delta):
            loop().soon(self._take_prompt, event)

    def _take(self, event: Event) -> None:
        if isinstance(event, Delta):
            if not self.is_over:
                self.sink(event)
        elif isinstance(event, Failed):
            self.fail(event)
        else:
            self._done = event
            self._end_if_whole()

    def _take_prompt(self, event: Done | Failed) -> None:
        if isinstance(event, Failed):
            self.fail(event)
        else:
            self._prompt_logprobs = event.logprobs
            self._end_if_whole()

    def _end_if_whole(self) -> None:
        done, prompt_logprobs = self._done, self._prompt_logprobs
        if done is None or prompt_logprobs is None:
            return
        if self._params.return_text_in_logprobs:
            prompt_logprobs = tuple(map(self._with_text, prompt_logprobs))
            done = replace(done, logprobs=tuple(map(self._with_text, done.logprobs)))
        self.end(replace(done, prompt_logprobs=prompt_logprobs) if prompt_logprobs else done)

    def _with_text(self, token: TokenLogprob) -> TokenLogprob:
        decode = self._tokenizer.decode
        return replace(token, text=decode([token.token_id]), top_texts=tuple(decode([other]) for other, _ in token.top))


class _Scoring(_Request):
    """Score requests: one for each chain of the texts' tree (runtime/score_tree.py), begun when the one it goes on from
    has ended. In the tree are the texts after the prompt, and also without it, if that was asked for."""

    def __init__(self, engine: Engine, texts: Sequence[str], unconditional: bool, sink: Sink) -> None:
        super().__init__(engine, sink)
        self.num_characters = sum(map(len, texts))
        self._texts = texts
        self._unconditional = unconditional
        self._tree = ScoreTree()
        self._judged: dict[tuple[int, bool], list[Judged]] = {}
        self._answers: list[Done] = []

    def encode(self, work: Tokenization) -> list[EngineRequest]:
        known = work.run()
        for index, text in enumerate(self._texts):
            for unconditional, (key, before, token_ids) in enumerate(to_judge(known, text, self._unconditional)):
                self._judged[index, bool(unconditional)] = self._tree.add(key, before, token_ids)
        return [self._request(chain) for chain in self._tree.chains()]

    def _request(self, chain: Chain) -> EngineRequest:
        sink = partial(self._on_engine, chain)
        return EngineRequest(list(chain.token_ids), _NOTHING, sink, score_from=chain.start, also=chain.also)

    def begin(self, requests: list[EngineRequest]) -> None:
        if requests:
            super().begin(requests)
        else:
            self.end(self._done())

    def key(self, requests: list[EngineRequest]) -> Hashable:
        return tuple(self._texts), self._unconditional, super().key(requests)

    def _on_engine(self, chain: Chain, event: Event) -> None:
        """Take an event on the engine's thread."""
        if not isinstance(event, Delta):
            loop().soon(self._take, chain, event)

    def _take(self, chain: Chain, event: Done | Failed) -> None:
        if self.is_over:
            return
        if isinstance(event, Failed):
            self.fail(event)
            return
        self._answers.append(event)
        if event.finish_reason != "cancelled":
            chain.take(event.logprobs)
            for more in chain.rest:
                self.submit(self._request(more))
        if len(self._answers) == len(self.sent):
            self.end(self._done())

    def _done(self) -> Done:
        answers = self._answers
        if any(done.finish_reason == "cancelled" for done in answers):
            return Done("", (), "cancelled")
        return Done(
            "",
            (),
            "stop",
            scores=tuple(self._scored(index, text) for index, text in enumerate(self._texts)),
            prompt_tokens=sum(done.prompt_tokens for done in answers),
            cached_tokens=sum(done.cached_tokens for done in answers),
            queue_ms=max((done.queue_ms for done in answers), default=0.0),
            first_ms=max((done.wall_ms for done in answers), default=0.0),
            wall_ms=max((done.wall_ms for done in answers), default=0.0),
        )

    def _scored(self, index: int, text: str) -> Scored:
        return scored(text, self._logprobs(index, False), self._logprobs(index, True) if self._unconditional else None)

    def _logprobs(self, index: int, unconditional: bool) -> tuple[TokenLogprob, ...]:
        places = self._judged.get((index, unconditional), [])
        return tuple(place.logprob for place in places if place.logprob is not None)
