"""One request on its way through the engine: its tokens, how far they are computed, and the KV it holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..ir.errors import ContextOverflow, RequestError
from .matcher import Matcher
from .output import Output
from .pool import Extent
from .radix import Node, TokenArray, prefix_len
from .request import EngineRequest, SamplingParams, TokenLogprob
from .uses import Owner

if TYPE_CHECKING:
    from torch import Tensor

    from .host_tier import Restore
    from .lookup import Drafting


# No token's id has so many bits.
_TAG_SHIFT = 32


@dataclass(eq=False, slots=True)
class Sequence:
    """A request with its state.

    keys: the prompt's tokens as the prefix tree knows them: with an adapter the first one is another, since KV that was
    computed with it is of use to nobody else.
    tokens has room for prompt and generation, of which num_tokens are known and the KV of `computed` is there. The KV
    lies in three parts, in this order: the path of `node` in the prefix tree, prompt_extent for what is left of the
    prompt, generated_extent for the generation.

    is_score, is_embedding: nothing is generated. wants_all_logits: whether the logits (or hidden states) before tokens
    that are known already are wanted too. end: how many tokens there are at most. target: how many tokens of the prompt
    are computed. first_logits: the first position whose logits (or hidden state) are wanted; only tokens before it may
    come from the cache. generated_room: tokens of KV that the generation may need. order_key: sequences with a common
    prefix are neighbours in the order of these keys.
    cached: tokens that came from the cache. overtaken: how many later requests were admitted before this one, those of
    its own batch counting less. awaited: how many of its tokens others wait for while it is prefilled.
    drafting: what is guessed to follow, once that was asked for. restore: what of the prompt comes back from host
    memory, until it is there; nothing else of the sequence is computed before.
    first_ms: when the model had chosen its first token. num_pending: tokens that steps in flight choose after those
    that are known (runtime/inflight.py).
    tag: its adapter's, 0 without one. is_greedy: whether it takes the largest logit each time, and nothing else is
    asked about it.
    matcher: follows the constraint, if there is one. num_told: generated tokens that the output has, which lags behind
    num_generated while forced tokens wait for their log-probabilities. hidden_sum: the sum of the first num_summed
    hidden states that are wanted, float64 (hidden_size,).
    """

    request: EngineRequest
    tokens: TokenArray
    output: Output
    seed: int
    stop_ids: tuple[int, ...]
    arrival: int
    submitted_ms: float
    computed: int = 0
    cached: int = 0
    overtaken: float = 0
    awaited: int = 0
    matcher: Matcher | None = None
    num_told: int = 0
    num_pending: int = 0
    admitted_ms: float | None = None
    first_ms: float | None = None
    node: Node | None = None
    prompt_extent: Extent | None = None
    generated_extent: Extent | None = None
    scores: list[TokenLogprob] = field(default_factory=list)
    drafting: Drafting | None = None
    restore: Restore | None = None
    hidden_sum: Tensor | None = None
    tag: int = 0
    num_summed: int = 0
    params: SamplingParams = field(init=False)
    is_score: bool = field(init=False)
    is_embedding: bool = field(init=False)
    is_greedy: bool = field(init=False)
    wants_all_logits: bool = field(init=False)
    prompt_len: int = field(init=False)
    end: int = field(init=False)
    num_tokens: int = field(init=False)
    target: int = field(init=False)
    first_logits: int = field(init=False)
    generated_room: int = field(init=False)
    keys: TokenArray = field(init=False)
    order_key: bytes = field(init=False)

    def __post_init__(self) -> None:
        score_from, embed_from = self.request.score_from, self.request.embed_from
        self.params = self.request.params
        self.is_score = score_from is not None
        self.is_embedding = embed_from is not None
        self.wants_all_logits = self.is_score or self.is_embedding or self.params.logprobs is not None
        self.is_greedy = self.matcher is None and self.params.is_greedy
        self.prompt_len = self.num_tokens = len(self.request.token_ids)
        self.end = self.prompt_len + self.request.max_tokens
        # To score, the last token's KV is not needed, and neither is that of the last token generated.
        self.target = self.prompt_len if score_from is None else self.prompt_len - 1
        if embed_from is None:
            self.first_logits = (self.prompt_len if score_from is None else score_from) - 1
        else:
            self.first_logits = embed_from
        self.generated_room = max(self.request.max_tokens - 1, 0)
        self.keys = self.tokens[: self.prompt_len]
        if self.tag:
            self.keys = self.keys.copy()
            self.keys[0] += self.tag << _TAG_SHIFT
        self.order_key = self.keys.tobytes()

    @property
    def owner(self) -> Owner | None:
        """The run it belongs to, if it is known."""
        use = self.request.use
        return None if use is None else use.owner

    @property
    def num_placed(self) -> int:
        """Tokens that are known, and those that are being chosen."""
        return self.num_tokens + self.num_pending

    @property
    def num_generated(self) -> int:
        """Tokens that were generated so far, a stop token included."""
        return self.num_tokens - self.prompt_len

    @property
    def num_left(self) -> int:
        """How many tokens may still be generated."""
        return self.params.max_tokens - self.num_generated

    @property
    def goal(self) -> int:
        """How many of its tokens have to be computed: all that some token or log-probability depends on.

        Those that are being chosen count as if they were known not to end it.
        """
        if self.computed < self.target or self.is_embedding:
            return self.target
        num_placed = self.num_tokens + self.num_pending
        goes_on = num_placed < self.end and (self.matcher is None or not self.matcher.is_finished)
        return num_placed if goes_on else num_placed - 1

    @property
    def is_prefilling(self) -> bool:
        """Whether part of the prompt is still to be computed."""
        return self.computed < self.target

    @property
    def num_to_compute(self) -> int:
        """Tokens of the prompt that are to be computed yet."""
        coming = 0 if self.restore is None else self.restore.count
        return self.target - self.computed - coming

    @property
    def tail_start(self) -> int:
        """The position at which the sequence's own part of the prompt begins: where its path in the tree ends."""
        return prefix_len(self.node)

    @property
    def needs_nothing(self) -> bool:
        """Whether the request is answered without any computation."""
        if self.is_score or self.is_embedding:
            return self.first_logits >= self.target
        return self.params.max_tokens == 0

    def append(self, token_id: int) -> None:
        """Adds a generated token."""
        self.tokens[self.num_tokens] = token_id
        self.num_tokens += 1


def token_array(request: EngineRequest, *, vocab_size: int, context_length: int) -> TokenArray:
    """The request's tokens with room for its generation. Raises RequestError where the request cannot be served."""
    params, prompt_len = request.params, len(request.token_ids)
    params.check()
    _check_stops(params, vocab_size)
    if prompt_len == 0:
        raise RequestError("the prompt is empty", help="give at least one token, such as the beginning-of-text token")
    _check_length(request, context_length)
    tokens = np.zeros(prompt_len + request.max_tokens, dtype=np.int64)
    tokens[:prompt_len] = _integers(request.token_ids)
    outside = np.flatnonzero((tokens < 0) | (tokens >= vocab_size))
    if len(outside):
        at = int(outside[0])
        raise RequestError(f"token id {tokens[at]} at position {at} is outside the vocabulary of {vocab_size} tokens")
    return tokens


def _integers(token_ids: list[int]) -> TokenArray:
    try:
        array = np.asarray(token_ids)
    except ValueError as error:
        raise RequestError(f"the prompt is not a flat list of token ids: {error}") from error
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise RequestError("the prompt's token ids are not 64-bit integers")
    return array.astype(np.int64)


def _check_stops(params: SamplingParams, vocab_size: int) -> None:
    for token_id in params.stop_token_ids:
        if not 0 <= token_id < vocab_size:
            raise RequestError(f"stop token id {token_id} is outside the vocabulary of {vocab_size} tokens")


def _check_length(request: EngineRequest, context_length: int) -> None:
    prompt_len, score_from, embed_from = len(request.token_ids), request.score_from, request.embed_from
    if score_from is not None and not 1 <= score_from <= prompt_len:
        raise RequestError(f"score_from must be between 1 and the prompt's {prompt_len} tokens, got {score_from}")
    if score_from is not None and embed_from is not None:
        raise RequestError("a request has score_from or embed_from, not both")
    if embed_from is not None and not 0 <= embed_from < prompt_len:
        raise RequestError(
            f"hidden states were asked for from token {embed_from} on, and the prompt has {prompt_len} tokens"
        )
    max_tokens = request.max_tokens
    if prompt_len + max_tokens > context_length:
        most = context_length - prompt_len
        advice = f"set max_tokens to at most {most}" if most > 0 else "shorten the prompt"
        raise ContextOverflow(
            f"{prompt_len} prompt tokens and max_tokens={max_tokens} are {prompt_len + max_tokens} tokens, "
            f"the model's context holds {context_length}",
            help=advice,
        )
