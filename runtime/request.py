"""What is asked of a backend and what comes back: sampling parameters, requests and events.

These are the records that travel between the interpreter, a backend and the engine. They hold no tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import RequestError
from .constraint import Constraint

if TYPE_CHECKING:
    from torch import Tensor

    from .uses import Use

FinishReason = Literal["stop", "length", "cancelled"]
Processor = Callable[["Tensor", "Tensor"], "Tensor | None"]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one generation is sampled and when it stops.

    temperature: 0 is greedy (the default). top_k: 0 is off. seed: with the same seed the result does not depend on
    what else is in the batch. stop_regex: patterns (Python's `re`) that end the text before their match, see output.py.
    logprobs: None is off, n >= 0 asks for the chosen token's and the top n. logprob_start_len: also asks for those of
    the prompt's tokens from this position on. return_text_in_logprobs: tell the tokens' texts with them. n: how many
    samples; what a backend is asked for is always one. constraint: what the text must match. close: a text that
    max_tokens cuts off before it does gets the shortest end with which it does. processors: called one
    after another before each token with the token ids so far (a LongTensor of prompt and generation) and the raw logits
    (vocab,) in float32, which they edit in place or replace; one with an attribute `batched` that is true is called
    once for all rows of a step, with a list of their token ids and with logits (rows, vocab). speculative_tokens: how
    far a server may go on past a stop, so that one request answers the generations that follow (backends/overrun.py).
    """

    max_tokens: int = 128
    min_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    seed: int | None = None
    logprobs: int | None = None
    stop_regex: tuple[str, ...] = ()
    logprob_start_len: int | None = None
    return_text_in_logprobs: bool = False
    n: int = 1
    constraint: Constraint | None = None
    close: bool = False
    processors: tuple[Processor, ...] = ()
    speculative_tokens: int = 0
    adapter: str | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the largest logit is taken as it is, and no log-probability of it is asked for."""
        is_edited = self.processors or self.min_tokens or self.frequency_penalty or self.presence_penalty
        return not (self.temperature or is_edited or self.logprobs is not None) and self.repetition_penalty == 1

    def check(self) -> None:
        """Raises RequestError that names the parameter that is out of range, TypeError for one of the wrong type."""
        self._check_types()
        for name, value, holds, want in (
            ("max_tokens", self.max_tokens, self.max_tokens >= 0, ">= 0"),
            ("min_tokens", self.min_tokens, 0 <= self.min_tokens <= self.max_tokens, "between 0 and max_tokens"),
            ("temperature", self.temperature, 0 <= self.temperature < math.inf, ">= 0 and finite"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "in (0, 1]"),
            ("top_k", self.top_k, self.top_k >= 0, ">= 0 (0 is off)"),
            ("min_p", self.min_p, 0 <= self.min_p <= 1, "in [0, 1]"),
            ("frequency_penalty", self.frequency_penalty, math.isfinite(self.frequency_penalty), "finite"),
            ("presence_penalty", self.presence_penalty, math.isfinite(self.presence_penalty), "finite"),
            ("repetition_penalty", self.repetition_penalty, 0 < self.repetition_penalty < math.inf, "> 0 and finite"),
            ("logprobs", self.logprobs, (self.logprobs or 0) >= 0, "None or >= 0"),
            ("logprob_start_len", self.logprob_start_len, (self.logprob_start_len or 0) >= 0, "None or >= 0"),
            ("n", self.n, self.n >= 1, ">= 1"),
            ("speculative_tokens", self.speculative_tokens, self.speculative_tokens >= 0, ">= 0 (0 is off)"),
        ):
            if not holds:
                raise RequestError(f"{name} must be {want}, got {value!r}")
        if "" in self.stop:
            raise RequestError("a stop string is empty", help="leave it out, or give the text that ends the output")
        for pattern in self.stop_regex:
            compiled(pattern)
        if self.constraint is not None:
            self.constraint.check()

    def _check_types(self) -> None:
        """What is not a number would fail inside a step, and that fails everything in the batch."""
        for name in ("max_tokens", "min_tokens", "top_k", "n", "speculative_tokens", *_OPTIONAL):
            value = getattr(self, name)
            if not isinstance(value, Integral) and not (value is None and name in _OPTIONAL):
                raise TypeError(f"{name} must be an int, got {value!r}")
        for name in ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty"):
            if not isinstance(getattr(self, name), Real):
                raise TypeError(f"{name} must be a number, got {getattr(self, name)!r}")
        if not isinstance(self.close, bool):
            raise TypeError(f"close must be True or False, got {self.close!r}")
        if not (self.adapter is None or isinstance(self.adapter, str)):
            raise TypeError(f"adapter must be the name of an adapter, got {self.adapter!r}")
        _check_tuple("stop", self.stop, str)
        _check_tuple("stop_regex", self.stop_regex, str)
        _check_tuple("stop_token_ids", self.stop_token_ids, Integral)
        if not isinstance(self.processors, tuple) or not all(map(callable, self.processors)):
            raise TypeError(f"processors must be a tuple of functions, got {self.processors!r}")


_OPTIONAL = ("seed", "logprobs", "logprob_start_len")


@lru_cache(maxsize=256)
def compiled(pattern: str) -> re.Pattern[str]:
    """A stop pattern. Raises RequestError for one that is no pattern, or that matches the empty text."""
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise RequestError(f"stop_regex {pattern!r} is no regular expression: {error}") from None
    if found.search(""):
        raise RequestError(
            f"stop_regex {pattern!r} matches the empty text, so that nothing could be generated",
            help="let it match at least one character",
        )
    return found


def _check_tuple(name: str, values: Any, kind: type) -> None:
    if not isinstance(values, tuple) or not all(isinstance(value, kind) for value in values):
        raise TypeError(f"{name} must be a tuple of {'str' if kind is str else 'int'}, got {values!r}")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token's log-probability (natural logarithm, at temperature 1) and the most likely alternatives.

    text, top_texts: the text of the token and of each alternative, where they were asked for or a server tells them; an
    id of -1 says that it tells no ids.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    text: str | None = None
    top_texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """How likely a text is after a prompt: the log-probability of each of its tokens, given all tokens before it.

    unconditional: the log-probabilities of the same tokens without the prompt, where they were asked for.
    """

    text: str
    tokens: tuple[TokenLogprob, ...]
    unconditional: tuple[float, ...] | None = None

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens' ids."""
        return tuple(token.token_id for token in self.tokens)

    @property
    def total(self) -> float:
        """The text's log-probability; 0 for no tokens."""
        return math.fsum(token.logprob for token in self.tokens)

    @property
    def mean(self) -> float:
        """The mean over the tokens; -inf for no tokens."""
        return self.total / len(self.tokens) if self.tokens else -math.inf

    @property
    def mean_gain(self) -> float:
        """The mean of what the prompt adds to each token's log-probability; -inf for no tokens."""
        assert self.unconditional is not None, "scored without the unconditional log-probabilities"
        gain = self.total - math.fsum(self.unconditional)
        return gain / len(self.tokens) if self.tokens else -math.inf


@dataclass(frozen=True, slots=True)
class Delta:
    """Newly generated tokens of one request, in order, with the text that became final with them."""

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """A request finished. The last event of a request that did not fail.

    text and token_ids are the whole generation without the stop: token_ids are the generated tokens whose text lies
    wholly before the stop, `tail` is the text after them: what was before a stop string that began inside a token, or
    all of it, where a server tells no token ids. matched: the stop string, stop pattern or stop token id that ended it.
    prompt_logprobs: of the prompt's tokens that were asked for; a prompt's first token has none. scores: where they
    were asked for, one for each text. shared: the answer of an equal request. is_cut: max_tokens ended it before the
    text matched its constraint; closing: the text, at the end, that was added so that it does. embedding: the mean of
    the hidden states that were asked for, float32 (hidden_size,). cache_write_tokens: of the prompt's tokens those that
    a server says it has put into its cache, where it charges for that.

    Times in milliseconds since it was submitted: queue_ms until it was begun, first_ms until the model had chosen its
    first token or had computed all (None where nobody knows), wall_ms until its end.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    tail: str = ""
    matched: str | int | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    scores: tuple[Scored, ...] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    cache_write_tokens: int = 0
    queue_ms: float = 0.0
    first_ms: float | None = None
    wall_ms: float = 0.0
    shared: bool = False
    is_cut: bool = False
    closing: str = ""
    embedding: NDArray[np.float32] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """A request failed; its last event."""

    error: BaseException


Event = Delta | Done | Failed
Sink = Callable[[Event], None]


@dataclass(slots=True)
class EngineRequest:
    """One request of token ids to the local engine.

    With `score_from` set nothing is generated: Done.logprobs holds the log-probability of each of
    token_ids[score_from:] given all tokens before it (score_from >= 1). also: tokens, for each of these positions,
    whose log-probabilities are its `top`.

    With `embed_from` set nothing is generated either: Done.embedding is the mean of the final hidden states (behind the
    final norm) of token_ids[embed_from:] (0 <= embed_from < len(token_ids)).

    `sink` is called on the engine's thread. use: what it means to the run that asks, if one does. wants_deltas: whether
    the sink is told of new tokens before the end.
    """

    token_ids: list[int]
    params: SamplingParams
    sink: Sink
    score_from: int | None = None
    also: tuple[tuple[int, ...], ...] = ()
    id: int = field(default=0)
    use: Use | None = None
    wants_deltas: bool = True
    embed_from: int | None = None

    @property
    def max_tokens(self) -> int:
        """How many tokens may be generated."""
        return self.params.max_tokens if self.score_from is None and self.embed_from is None else 0
