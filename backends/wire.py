"""The answers of OpenAI-compatible servers: chat or text, whole or in pieces, all in one record.

Only what is used is read; fields that some servers add (the stop that matched) are optional.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..runtime.call_format import WrittenCall
from ..runtime.request import Done, FinishReason, TokenLogprob
from .native_tools import SHOWN_CALLS
from .remote import Trouble

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "tool_calls": "stop",
    "length": "length",
}


class TopLogprob(msgspec.Struct):
    token: str
    logprob: float


class ChatLogprob(TopLogprob):
    top_logprobs: list[TopLogprob] = []

    def of_token(self, num_top: int | None) -> TokenLogprob:
        """As ramify's record."""
        return _token(self.token, self.logprob, [(top.token, top.logprob) for top in self.top_logprobs], num_top)


class Logprobs(msgspec.Struct):
    """Of a chat answer in `content`; of a text answer in the three lists, where a prompt's first token has none."""

    content: list[ChatLogprob] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None

    def of_tokens(self, num_top: int | None) -> list[TokenLogprob]:
        """One entry a token, without ids, which these servers do not tell. num_top: see Collector."""
        if self.content is not None:
            return [token.of_token(num_top) for token in self.content]
        tokens, values = self.tokens or [], self.token_logprobs or []
        tops = self.top_logprobs or [None] * len(tokens)
        return [
            _token(token, value, list((top or {}).items()), num_top)
            for token, value, top in zip(tokens, values, tops, strict=False)
            if value is not None
        ]


def _token(text: str, logprob: float, top: list[tuple[str, float]], num_top: int | None) -> TokenLogprob:
    top = sorted(top, key=lambda each: -each[1])[:num_top]
    alternatives = tuple((-1, value) for _, value in top)
    return TokenLogprob(-1, logprob, alternatives, text, tuple(alternative for alternative, _ in top))


class Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct):
    """A call of a tool, or a piece of one: `index` is its number."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None


class Choice(msgspec.Struct):
    index: int = 0
    message: Message | None = None
    delta: Message | None = None
    text: str | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    matched_stop: Any = None

    @property
    def matched(self) -> str | int | None:
        """The stop string or token id that ended it, where the server tells."""
        found = self.stop_reason if self.stop_reason is not None else self.matched_stop
        return found if isinstance(found, str | int) else None

    @property
    def calls(self) -> list[Call]:
        """The calls of tools in this answer or piece."""
        message = self.message or self.delta
        return (message.tool_calls if message is not None else None) or []

    def piece(self) -> str:
        """The text of this answer or piece. Raises Trouble when the model refused to give one."""
        message = self.message or self.delta
        if message is None:
            return self.text or ""
        if message.refusal:
            raise Trouble(f"the model refused to answer: {message.refusal}")
        return message.content or ""


class CachedTokens(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: CachedTokens | None = None
    cache_write_tokens: int = 0

    @property
    def num_cached(self) -> int:
        """How many tokens of the prompt came from the server's cache."""
        details = self.prompt_tokens_details
        return (details.cached_tokens if details is not None else None) or 0


class Answer(msgspec.Struct):
    """A whole answer, or one piece of a stream; then the last pieces may hold no choice but the usage."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None

    def check(self) -> None:
        """Raises Trouble if the server reports an error in place of an answer."""
        if self.error is None:
            return
        details = self.error if isinstance(self.error, dict) else {"message": str(self.error)}
        code = details.get("code")
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
        raise Trouble.of_status(status, f"the server failed: {details.get('message', self.error)}", {})


class Collector:
    """Puts an answer together from its pieces.

    num_top: how many of the likeliest tokens are told of at most; servers tell of the chosen one beside them, or of
    more than they were asked for. None is all.
    """

    def __init__(self, num_top: int | None = None) -> None:
        self._num_top = num_top
        self.pieces: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish: str | None = None
        self.matched: str | int | None = None
        self.usage = Usage()
        self._calls: dict[int, list[str]] = {}

    def take(self, answer: Answer) -> tuple[str, tuple[TokenLogprob, ...]]:
        """Add a piece; gives its text and log-probabilities. Raises Trouble."""
        answer.check()
        self.usage = answer.usage or self.usage
        text, logprobs = "", []
        for choice in answer.choices[:1]:
            text = choice.piece()
            self._take_calls(choice.calls)
            logprobs = choice.logprobs.of_tokens(self._num_top) if choice.logprobs is not None else []
            self.finish = choice.finish_reason or self.finish
            self.matched = choice.matched if self.matched is None else self.matched
        self.pieces.append(text)
        self.logprobs += logprobs
        return text, tuple(logprobs)

    def _take_calls(self, calls: list[Call]) -> None:
        """Add calls, or pieces of them: of each the id and the name come first, then its arguments."""
        for number, call in enumerate(calls):
            index = number if call.index is None else call.index
            id, name, arguments = self._calls.get(index, ("", "", ""))
            function = call.function or Function()
            self._calls[index] = [
                id or call.id or "",
                name or function.name or "",
                arguments + (function.arguments or ""),
            ]

    @property
    def calls(self) -> str:
        """The text of the calls (native_tools.py); cut off, if the last one's arguments are."""
        if not self._calls:
            return ""
        *known, last = (self._calls[index] for index in sorted(self._calls))
        try:
            return SHOWN_CALLS.write([_written(each) for each in (*known, last)])
        except msgspec.DecodeError:
            pass
        try:
            before = [*map(_written, known), WrittenCall(last[1], {}, last[0])]
        except msgspec.DecodeError as error:
            raise Trouble(f"the arguments of a call are no JSON: {error}") from None
        return SHOWN_CALLS.write(before).removesuffix("{}" + SHOWN_CALLS.closing) + last[2]

    def done(self) -> Done:
        """The answer. Raises Trouble if it did not end as one should."""
        if self.finish is None:
            raise Trouble("the server's answer broke off before its end", passing=True)
        if self.finish not in _REASONS:
            raise Trouble(f"the server ended the answer because of {self.finish!r}")
        text = "".join(self.pieces) + self.calls
        return Done(
            text,
            (),
            _REASONS[self.finish],
            tail=text,
            matched=self.matched,
            logprobs=tuple(self.logprobs),
            prompt_tokens=self.usage.prompt_tokens or 0,
            cached_tokens=self.usage.num_cached,
            generated_tokens=self.usage.completion_tokens or 0,
            cache_write_tokens=self.usage.cache_write_tokens,
        )


def _written(call: list[str]) -> WrittenCall:
    """A call with its arguments read. Raises DecodeError."""
    id, name, arguments = call
    return WrittenCall(name, msgspec.json.decode(arguments or "{}"), id)
