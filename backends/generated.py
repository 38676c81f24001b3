"""The answers of SGLang's /generate, and a generation as it grows from them.

The pieces of a stream hold all so far, or only what is new, as the server was started.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import msgspec

from ..runtime.output import Output, TextStream, find_first, longest_start
from ..runtime.request import Delta, Done, FinishReason, SamplingParams, TokenLogprob
from .remote import Trouble

_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
_Entry = tuple[float | None, int, str | None]


class Finish(msgspec.Struct):
    """Why a generation ended: "stop" (with what matched), "length" or "abort" (with a message)."""

    type: str
    matched: Any = None
    message: str | None = None
    status_code: int | None = None


class Meta(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    finish_reason: Finish | None = None
    input_token_logprobs: list[_Entry] | None = None
    output_token_logprobs: list[_Entry] | None = None
    input_top_logprobs: list[list[_Entry] | None] | None = None
    output_top_logprobs: list[list[_Entry] | None] | None = None


class Generated(msgspec.Struct):
    """A whole answer or one piece of a stream. tail: of ramify's own server, see Done; it comes with the last piece."""

    text: str | None = None
    tail: str | None = None
    output_ids: list[int] = []
    prompt_token_ids: list[int] | None = None
    meta_info: Meta = msgspec.field(default_factory=Meta)
    error: Any = None

    def check(self) -> None:
        """Raises Trouble if it is no answer but an error."""
        finish = self.meta_info.finish_reason
        if self.error is not None:
            details = self.error if isinstance(self.error, dict) else {"message": str(self.error)}
            code = details.get("code")
            status = code if isinstance(code, int) else 500
            raise Trouble.of_status(status, f"the server failed: {details.get('message', self.error)}", {})
        if finish is not None and finish.type not in _REASONS:
            text = f"the server gave the request up: {finish.message or finish.type}"
            raise Trouble.of_status(finish.status_code or 500, text, {})

    def judged(self, token_ids: list[int]) -> tuple[TokenLogprob, ...]:
        """The log-probabilities of these last tokens of the prompt. Raises Trouble if the server has judged others."""
        self.check()
        entries = self.meta_info.input_token_logprobs or []
        last = entries[len(entries) - len(token_ids) :]
        if [token_id for _, token_id, _ in last] != token_ids or any(value is None for value, _, _ in last):
            raise Trouble(f"the server was asked to score the tokens {token_ids}, and scored {last}")
        return tuple(_logprob(entry, []) for entry in last)

    def token_logprobs(self) -> list[TokenLogprob]:
        """The log-probabilities of the generated tokens, where they were asked for."""
        return _logprobs(self.meta_info.output_token_logprobs, self.meta_info.output_top_logprobs)


def _logprobs(entries: list[_Entry] | None, tops: list[list[_Entry] | None] | None) -> list[TokenLogprob]:
    entries = entries or []
    tops = tops or [None] * len(entries)
    return [_logprob(entry, top or []) for entry, top in zip(entries, tops, strict=False)]


def _logprob(entry: _Entry, top: list[_Entry]) -> TokenLogprob:
    logprob, token_id, text = entry
    alternatives = tuple((other_id, value) for value, other_id, _ in top if value is not None)
    texts = tuple(other for value, _, other in top if value is not None and other is not None)
    return TokenLogprob(token_id, logprob if logprob is not None else float("-inf"), alternatives, text, texts)


class Growing(Protocol):
    """A generation that grows piece by piece."""

    def take(self, piece: Generated) -> Delta | None:
        """Add a piece; gives what became final with it. Raises Trouble."""

    def done(self) -> Done:
        """The whole. Raises Trouble when the pieces broke off."""


class TextGrowing:
    """A generation whose text is the server's. What may become a stop string, or match a pattern, is held back."""

    def __init__(self, params: SamplingParams, is_incremental: bool) -> None:
        self._params = params
        self._is_incremental = is_incremental
        self._text = ""
        self._num_released = 0
        self._logprobs: list[TokenLogprob] = []
        self._meta = Meta()

    def take(self, piece: Generated) -> Delta | None:
        """See Growing."""
        piece.check()
        self._meta = piece.meta_info
        text, logprobs = piece.text or "", piece.token_logprobs()
        self._text = self._text + text if self._is_incremental else text
        self._logprobs = self._logprobs + logprobs if self._is_incremental else logprobs
        new = self._text[self._num_released : self._num_final()]
        self._num_released += len(new)
        return Delta(new) if new else None

    def _num_final(self) -> int:
        """How much of the text is known to stay. A server keeps the text that matches a pattern, we do not."""
        patterns = self._params.stop_regex
        if self._meta.finish_reason is not None:
            found = find_first(self._text, (), patterns)
            return len(self._text) if found is None else found[0]
        return 0 if patterns else len(self._text) - longest_start(self._text, self._params.stop)

    def done(self) -> Done:
        """See Growing."""
        text = self._text[: self._num_released]
        return _done(self._meta, self._params, Done(text, (), "stop", tail=text, logprobs=tuple(self._logprobs)))


class TokenGrowing:
    """A generation whose tokens are the server's and whose text is theirs, cut at stops as in this process."""

    def __init__(self, new_stream: Callable[[], TextStream], params: SamplingParams, is_incremental: bool) -> None:
        self._params = params
        self._output = Output(new_stream, params.stop, params.stop_regex)
        self._is_incremental = is_incremental
        self._num_taken = 0
        self._meta = Meta()

    def take(self, piece: Generated) -> Delta | None:
        """See Growing."""
        piece.check()
        self._meta = piece.meta_info
        start = 0 if self._is_incremental else self._num_taken
        token_ids, logprobs = piece.output_ids[start:], piece.token_logprobs()[start:]
        self._num_taken += len(token_ids)
        finish = self._meta.finish_reason
        if finish is not None and isinstance(finish.matched, int) and token_ids[-1:] == [finish.matched]:
            del token_ids[-1]  # the token that ended it is no part of it
        for index, token_id in enumerate(token_ids):
            if self._output.matched is None:
                self._output.push(token_id, logprobs[index] if logprobs else None)
        if finish is not None:
            self._output.finish()
        return self._output.take()

    def done(self) -> Done:
        """See Growing."""
        output = self._output
        done = Done(output.text, output.token_ids, "stop", output.tail, output.matched, output.logprobs)
        return _done(self._meta, self._params, done)


class ServedGrowing:
    """A generation of ramify's own server: its text, its tokens and its stops are what they are in this process."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._text = ""
        self._token_ids: tuple[int, ...] = ()
        self._last = Generated()

    def take(self, piece: Generated) -> Delta | None:
        """See Growing. Each piece holds all so far."""
        piece.check()
        self._last = piece
        before, known = self._text, self._token_ids
        self._text, token_ids = piece.text or "", piece.output_ids
        finish = piece.meta_info.finish_reason
        if finish is not None and isinstance(finish.matched, int):
            token_ids = token_ids[:-1]  # the token that ended it is no part of it
        self._token_ids = tuple(token_ids)
        text, new_ids = self._text[len(before) :], self._token_ids[len(known) :]
        return Delta(text, new_ids, tuple(piece.token_logprobs()[len(known) :])) if text or new_ids else None

    def done(self) -> Done:
        """See Growing."""
        logprobs = tuple(self._last.token_logprobs())
        done = Done(self._text, self._token_ids, "stop", tail=self._last.tail or "", logprobs=logprobs)
        return _done(self._last.meta_info, self._params, done)


def _done(meta: Meta, params: SamplingParams, done: Done) -> Done:
    """What was generated, with what the server tells of it. Raises Trouble if it did not end."""
    if meta.finish_reason is None:
        raise Trouble("the server's answer broke off before its end", passing=True)
    matched = meta.finish_reason.matched
    prompt = _logprobs(meta.input_token_logprobs, meta.input_top_logprobs)[1:]  # the first has no log-probability
    return replace(
        done,
        finish_reason="stop" if done.matched is not None else _REASONS[meta.finish_reason.type],
        matched=done.matched or (matched if isinstance(matched, str | int) else None),
        logprobs=done.logprobs if params.logprobs is not None else (),
        prompt_logprobs=tuple(prompt) if params.logprob_start_len is not None else (),
        prompt_tokens=meta.prompt_tokens,
        cached_tokens=meta.cached_tokens,
        generated_tokens=meta.completion_tokens,
    )
