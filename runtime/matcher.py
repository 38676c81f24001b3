"""Constraints at work: which tokens may follow, for one tokenizer and many requests at once.

Grammars compiles each Constraint once with llguidance and gives every request a Matcher of its own. The text of a
token is what `Vocabulary.token_bytes` says; the end of a generation is not among the tokens: it may come where a
Matcher accepts, and which tokens stand for it is the request's own affair.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from copy import copy
from functools import cached_property
from itertools import compress
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ..ir.errors import BackendError, RequestError
from .background import Background
from .constraint import Constraint
from .grammar import brief, limits
from .lengths import JsonLengths

if TYPE_CHECKING:
    from llguidance import LLExecutor, LLMatcher, LLTokenizer

LengthKind = Literal["number", "text", "list"]
_MAX_COMPILED = 256
# What ends a member of a list or object and goes on with the next, inside of one token.
_MEMBER_ENDS = (b'",', b"],", b"},", b"e,", b"l,", *(b"%d," % digit for digit in range(10)))
# llguidance marks special tokens with this byte; it is part of no UTF-8 text, so no token with it can be generated.
_MARK = b"\xff"
_END = b"<end of generation>"


class Vocabulary(Protocol):
    """What is asked of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id."""

    @property
    def special_ids(self) -> frozenset[int]:
        """The tokens that stand for no text."""

    def token_bytes(self, token_id: int, /) -> bytes:
        """The bytes that a token adds to a text: none for an id without a token."""

    def token_text(self, token_id: int, /) -> str:
        """A token's name."""

    def encode_after(self, text: str, /) -> Sequence[int]:
        """The tokens of a text that follows generated tokens."""


class Matcher:
    """Follows one generation: what it may go on with, and whether it may end.

    inner: the matcher of llguidance. end_ids: the tokens that end the generation and stand for no text.
    """

    __slots__ = ("_lengths", "_token_ids", "constraint", "end_ids", "grammars", "inner")

    def __init__(self, grammars: Grammars, constraint: Constraint, inner: LLMatcher, end_ids: list[int]) -> None:
        self.grammars = grammars
        self.constraint = constraint
        self.inner = inner
        self.end_ids = end_ids
        self._token_ids: list[int] = []
        is_json = constraint.kind in ("json_schema", "calls")
        self._lengths = JsonLengths.of_schema(constraint.source) if is_json else None

    @property
    def is_complete(self) -> bool:
        """Whether the text matches as it is: the generation may end here."""
        return self.inner.is_accepting()

    @property
    def is_finished(self) -> bool:
        """Whether the text matches and nothing may follow."""
        return self.inner.is_stopped() and self.inner.is_accepting()

    def kept_back(self) -> Iterator[LengthKind]:
        """What of the text is so long that it should end where it can."""
        lengths = self._lengths
        if lengths is None:
            return
        if lengths.is_number_long:
            yield "number"
        if self.constraint.kind == "json_schema" and lengths.is_text_long:
            yield "text"
        if self.constraint.kind == "json_schema" and lengths.is_list_long:
            yield "list"

    def copy(self) -> Matcher:
        """One in the same state that goes its own way."""
        other = Matcher(self.grammars, self.constraint, self.inner.deep_copy(), self.end_ids)
        other._token_ids = list(self._token_ids)
        other._lengths = copy(self._lengths)
        return other

    def ahead(self, guess: Sequence[int], *, most: int, forces: bool) -> tuple[list[int], list[Matcher]]:
        """As much of a guess as may follow, and the states after each of its tokens. Stays where it is.

        forces: what is forced after a token takes the place of the guess's next ones, so that there may be more of it,
        `most` tokens in all; where the guess says something else it ends.
        """
        token_ids: list[int] = []
        states: list[Matcher] = []
        if self.inner.is_stopped():
            return token_ids, states
        todo = list(guess[: self.inner.validate_tokens(list(guess))])
        state = self
        while todo and len(token_ids) < most:
            state = state.copy()
            try:
                state.consume(todo[0])
            except BackendError:
                break
            token_ids.append(todo.pop(0))
            states.append(state)
            forced = state.forced() if forces else []
            if forced[: len(todo)] != todo[: len(forced)] or len(forced) > len(todo):
                todo = forced
        return token_ids, states

    def consume(self, token_id: int) -> None:
        """Takes the next token. Raises BackendError when the constraint does not allow it."""
        self._token_ids.append(token_id)
        if self._lengths is not None:
            self._lengths.take(self.grammars.token_bytes(token_id))
        if not self.inner.consume_token(token_id):
            self.renew()
        self.check()

    def forced(self) -> list[int]:
        """The tokens that have to follow, which the tokenizer would give their text in any continuation."""
        if self.inner.is_stopped() or self.constraint.forces_long:
            return []
        token_ids: list[int] = []
        found = self.inner.compute_ff_tokens()
        if self.inner.is_error():
            self.renew()
            return []
        for token_id in found:
            if token_id >= self.grammars.num_tokens:
                break
            token_ids.append(token_id)
        return token_ids

    def renew(self) -> None:
        """Starts again with a lexer of its own and takes the same tokens.

        All matchers of a constraint share a lexer. When one text is too much for it, it is in error for all of them.
        """
        self.inner = self.grammars.separate(self.constraint)
        self.inner.consume_tokens(self._token_ids)

    def check(self) -> None:
        """Raises BackendError if the constraint can be followed no further."""
        if self.inner.is_error():
            raise BackendError(f"{self.constraint.label}: {brief(self.inner.get_error())}")
        if self.inner.is_stopped() and not self.inner.is_accepting():
            raise BackendError(f"{self.constraint.label}: nothing can follow the text ({self.inner.stop_reason()})")


class Grammars:
    """The compiled constraints of one tokenizer. Thread-safe; a matcher belongs to one thread at a time.

    num_tokens: how many logits the model gives, some of which may have no token.
    """

    def __init__(self, vocabulary: Vocabulary, num_tokens: int) -> None:
        self._vocabulary = vocabulary
        self.num_tokens = num_tokens
        self._compiled: OrderedDict[Constraint, LLMatcher] = OrderedDict()
        self._made: LLTokenizer | None = None
        self._lock = threading.Lock()
        self._masking = Background("ramify-masks")

    def has(self, constraint: Constraint) -> bool:
        """Whether the constraint is compiled already, so that a matcher of it costs nothing."""
        return constraint in self._compiled

    def compile(self, constraint: Constraint) -> None:
        """Does now what the first matcher of a constraint would wait for. Raises RequestError if it cannot be."""
        self._prototype(constraint)

    def matcher(self, constraint: Constraint, stop_ids: Sequence[int] = ()) -> Matcher:
        """A matcher at the beginning of a text that `stop_ids` would end. Raises RequestError as `compile` does."""
        prototype = self._prototype(constraint)
        with self._lock:
            inner = prototype.deep_copy()
        is_end = [token_id < self.num_tokens and not self._vocabulary.token_bytes(token_id) for token_id in stop_ids]
        return Matcher(self, constraint, inner, list(compress(stop_ids, is_end)))

    def begin(self, matchers: Sequence[Matcher | None]) -> Future[Tensor]:
        """`fill` beside what the caller does meanwhile, which must not be anything with these matchers."""
        return self._masking.submit(lambda: self.fill(matchers))

    def fill(self, matchers: Sequence[Matcher | None]) -> Tensor:
        """Which tokens may follow, as bits of int32 words (len(matchers), words) on the CPU; no bits without a matcher.

        Computed in parallel, without Python's lock. A matcher may be in error afterwards.
        """
        width = -(-self._tokenizer.vocab_size // 32)
        bits = torch.zeros((len(matchers), width), dtype=torch.int32)
        rows = [(matcher.inner, index) for index, matcher in enumerate(matchers) if matcher is not None]
        if rows:
            self._executor.unsafe_compute_mask_ptr(rows, bits.data_ptr(), width * 4, len(matchers))
        for index, matcher in enumerate(matchers):
            if matcher is not None and matcher.inner.is_error():
                matcher.renew()
                matcher.inner.unsafe_compute_mask_ptr(bits[index].data_ptr(), width * 4)
            for kind in matcher.kept_back() if matcher is not None else ():
                others = bits[index] & ~self._lengthening[kind]
                if matcher is not None and (matcher.is_complete or others.any()):
                    bits[index] = others
        return bits

    def allowed(self, bits: Tensor, device: torch.device) -> Tensor:
        """What `fill` gave as bools (rows, num_tokens) on a device. The end of the generation is not among them."""
        return _unpack(bits.to(device))[:, : self.num_tokens]

    def separate(self, constraint: Constraint) -> LLMatcher:
        """A matcher of llguidance that shares nothing, also with those that come later."""
        from llguidance import LLMatcher

        with self._lock:
            self._compiled.pop(constraint, None)
        return LLMatcher(
            self._tokenizer, constraint.grammar(is_bounded=True, with_tokens=True), log_level=0, limits=limits()
        )

    def _prototype(self, constraint: Constraint) -> LLMatcher:
        compiled = self._compiled.get(constraint) or self._compile(constraint)
        with self._lock:
            self._compiled[constraint] = compiled
            self._compiled.move_to_end(constraint)
            if len(self._compiled) > _MAX_COMPILED:
                self._compiled.popitem(last=False)
        return compiled

    def _compile(self, constraint: Constraint) -> LLMatcher:
        constraint.check()
        compiled = self.separate(constraint)
        if compiled.is_error():
            raise RequestError(f"{constraint.label}: {brief(compiled.get_error())}")
        first = Matcher(self, constraint, compiled.deep_copy(), [])
        if not first.is_complete and not self.allowed(self.fill([first]), torch.device("cpu")).any():
            raise RequestError(f"{constraint.label}: no text matches it that this model's tokens can spell")
        return compiled

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text."""
        return self._vocabulary.token_bytes(token_id)

    @cached_property
    def _lengthening(self) -> dict[LengthKind, Tensor]:
        """The tokens that go on with a number, a text or a list, as bits of int32 words (words,)."""
        goes_on: dict[LengthKind, Callable[[bytes], bool]] = {
            "number": lambda token: token[:1].isdigit(),
            "text": lambda token: token[:1] != b'"',
            "list": lambda token: token[:1] == b"," or any(end in token for end in _MEMBER_ENDS),
        }
        return {kind: self._bits_of(test) for kind, test in goes_on.items()}

    def _bits_of(self, test: Callable[[bytes], bool]) -> Tensor:
        width = -(-self._tokenizer.vocab_size // 32)
        found = np.zeros(width * 32, dtype=bool)
        for token_id in range(self._vocabulary.vocab_size):
            found[token_id] = test(self._vocabulary.token_bytes(token_id))
        return torch.from_numpy(np.packbits(found, bitorder="little").view(np.int32))

    @cached_property
    def _executor(self) -> LLExecutor:
        from llguidance import LLExecutor

        return LLExecutor()

    @property
    def _tokenizer(self) -> LLTokenizer:
        """Made when the first constraint comes: for a large vocabulary that takes a second."""
        from llguidance import LLTokenizer, TokenizerWrapper

        with self._lock:
            if self._made is None:
                self._made = LLTokenizer(TokenizerWrapper(_Tokens(self._vocabulary, self.num_tokens)))
            return self._made


class _Tokens:
    """The vocabulary as llguidance wants it, with one token more for the end of a generation."""

    def __init__(self, vocabulary: Vocabulary, num_tokens: int) -> None:
        size = max(vocabulary.vocab_size, num_tokens)
        texts = [_without_mark(vocabulary.token_bytes(token_id)) for token_id in range(size)]
        special_ids = sorted(token_id for token_id in vocabulary.special_ids if token_id < size)
        self._vocabulary = vocabulary
        self._ids = {text: token_id for token_id, text in enumerate(texts) if text}
        self._longest = max(map(len, texts), default=0)
        self.tokens = [*texts, _END]
        for token_id in special_ids:
            self.tokens[token_id] = vocabulary.token_text(token_id).encode()
        self.eos_token_id = size
        self.bos_token_id = None
        self.special_token_ids = [*special_ids, size]

    def __call__(self, text: bytes) -> list[int]:
        """The tokens of a text: the tokenizer's if they say just that, else the longest that fit."""
        try:
            token_ids = list(self._vocabulary.encode_after(text.decode()))
        except UnicodeDecodeError:
            return self._longest_first(text)
        said = b"".join(map(self._vocabulary.token_bytes, token_ids))
        return token_ids if said == text else self._longest_first(text)

    def _longest_first(self, text: bytes) -> list[int]:
        """Tokens of a text that the tokenizer would change: special tokens' names, text that it normalizes."""
        token_ids: list[int] = []
        start = 0
        while start < len(text):
            stops = range(min(len(text), start + self._longest), start, -1)
            stop = next((stop for stop in stops if text[start:stop] in self._ids), None)
            if stop is None:
                break
            token_ids.append(self._ids[text[start:stop]])
            start = stop
        return token_ids


def _without_mark(token: bytes) -> bytes:
    return b"" if _MARK in token else token


def _unpack(bits: Tensor) -> Tensor:
    """The bits of int32 words (rows, words), lowest first, as bools (rows, 32 * words)."""
    powers = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=bits.device)
    return (bits.view(torch.uint8)[:, :, None] & powers).ne(0).view(len(bits), -1)
