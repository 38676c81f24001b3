"""A backend without a model: a function of the prompt's text answers. For tests, of ramify and of users' programs.

Words count as tokens. Answers are cut at stop strings and at max_tokens and come in pieces, as a model's would.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from time import perf_counter

from ..ir.errors import BackendError, UsageError
from ..runtime.backend import Sink
from ..runtime.chat import ChatFormat
from ..runtime.constraint import matches
from ..runtime.features import OWN
from ..runtime.loop import loop, post
from ..runtime.media import Media
from ..runtime.output import find_first
from ..runtime.prompt import Prompt
from ..runtime.request import Delta, Done, Failed, FinishReason, SamplingParams, Scored, TokenLogprob

Reply = Callable[[str, SamplingParams], str | BaseException]
Score = Callable[[str, str], float | Sequence[float]]

MARKS = ChatFormat.from_marks({role: (f"<{role}>", f"</{role}>\n") for role in ("system", "user", "assistant", "tool")})
_WORDS = (
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "haven",
    "islet",
    "jetty",
    "knoll",
    "ledge",
    "maple",
)


def hash_reply(text: str, params: SamplingParams) -> str:
    """A few words that depend on the prompt, and on the seed where a model would sample."""
    seed = params.seed if params.temperature > 0 else None
    digest = hashlib.blake2b(f"{seed}|{text}".encode(), digest_size=8).digest()
    return "".join(f" {_WORDS[byte % len(_WORDS)]}" for byte in digest[: 3 + digest[7] % 5])


def hash_score(text: str, continuation: str) -> list[float]:
    """Log-probabilities of the words of a continuation; each depends on what stands before it."""
    logprobs = []
    for word in words(continuation):
        logprobs.append(hash_logprob(text, word))
        text += word
    return logprobs


def hash_logprob(text: str, word: str) -> float:
    """A log-probability that depends on a word and on the text before it."""
    return -1.0 - zlib.crc32(f"{text}|{word}".encode()) / 2**32


def words(text: str) -> list[str]:
    """The pieces of a text that count as its tokens: words with the space before them."""
    return re.findall(r"\s*\S+|\s+$", text)


class ScriptedBackend:
    """Answers with `reply(prompt text, params)`, after `delay` seconds; an exception it returns or raises fails.

    `score(prompt text, continuation)` gives the log-probabilities of the continuation's words, or one number for each
    of them; choices are made by it. Both functions are called on the loop thread and must not block. A reply that does
    not match the gen's regex, json_schema or grammar is an error: nothing here makes it match. features: what it claims
    to do; what is missing is refused. requests, media: the prompt texts of all requests so far, in the order they
    came, and what images and videos are in each.
    """

    name = "scripted"

    def __init__(
        self,
        reply: Reply = hash_reply,
        *,
        score: Score = hash_score,
        delay: float = 0.0,
        chat: ChatFormat = MARKS,
        features: Iterable[str] = OWN,
    ) -> None:
        if not callable(reply):
            raise UsageError(f"a scripted backend is given a function of prompt and parameters, not {reply!r:.40}")
        self.chat = chat
        self.features = frozenset(features)
        self.reply = reply
        self._score_words = score
        self.delay = delay
        self.requests: list[str] = []
        self.media: list[list[Media]] = []
        self._closed = False

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Sink) -> _Script:
        """See Backend."""
        return self._begin(prompt, sink, sink.wants_deltas, lambda text: self._generated(text, params))

    def score(self, prompt: Prompt, texts: Sequence[str], sink: Sink, *, unconditional: bool = False) -> _Script:
        """See Scorer."""
        return self._begin(prompt, sink, False, lambda text: self._score(text, texts, unconditional))

    def close(self) -> None:
        """Refuse what comes from now on."""
        self._closed = True

    def _begin(self, prompt: Prompt, sink: Sink, streams: bool, answer: Callable[[str], Done]) -> _Script:
        script = _Script(sink, streams, self.delay)
        post(self._run, prompt, script, answer)
        return script

    def _run(self, prompt: Prompt, script: _Script, answer: Callable[[str], Done]) -> None:
        try:
            if self._closed:
                raise BackendError("the scripted backend is closed")
            text = prompt.text_value()
            assert isinstance(text, str)
            self.requests.append(text)
            self.media.append(prompt.media())
            script.play(answer(text), prompt_tokens=len(words(text)))
        except Exception as error:
            script.fail(error)

    def _answer(self, text: str, params: SamplingParams) -> str:
        answer = self.reply(text, params)
        if isinstance(answer, BaseException):
            raise answer
        if not isinstance(answer, str):
            raise TypeError(f"the reply function returned {type(answer).__name__}, not a text")
        if params.constraint is not None and not matches(params.constraint, answer):
            raise BackendError(
                f"the scripted reply {answer!r:.80} does not match the {params.constraint.label} {_source(params)}"
            )
        return answer

    def _generated(self, prompt: str, params: SamplingParams) -> Done:
        done = _cut(self._answer(prompt, params), params)
        if params.logprobs is not None:
            done = replace(done, logprobs=self._told(prompt, done.text, params))
        if params.logprob_start_len is not None:
            told = self._told("", prompt, params)
            done = replace(done, prompt_logprobs=told[max(1, params.logprob_start_len) :])
        return done

    def _told(self, before: str, text: str, params: SamplingParams) -> tuple[TokenLogprob, ...]:
        """The log-probabilities of a text's words; what else is likely are words made up for it."""
        told = []
        for word, logprob in zip(words(text), self._logprobs(before, text), strict=True):
            others = [f" {other}" for other in _WORDS[: params.logprobs or 0]]
            top = tuple((_id(other), logprob - 1.0 - number) for number, other in enumerate(others))
            shown = params.return_text_in_logprobs
            told.append(TokenLogprob(_id(word), logprob, top, word if shown else None, tuple(others) if shown else ()))
        return tuple(told)

    def _score(self, prompt: str, texts: Sequence[str], unconditional: bool) -> Done:
        scores = []
        for text in texts:
            pairs = zip(_ids(text), self._logprobs(prompt, text), strict=True)
            tokens = tuple(TokenLogprob(token_id, logprob) for token_id, logprob in pairs)
            scores.append(Scored(text, tokens, tuple(self._logprobs("", text)) if unconditional else None))
        return Done("", (), "stop", scores=tuple(scores))

    def _logprobs(self, prompt: str, text: str) -> Sequence[float]:
        answer = self._score_words(prompt, text)
        return [answer] * len(words(text)) if isinstance(answer, int | float) else answer


class _Script:
    """One answer on its way to its sink; also the handle that cancels it."""

    def __init__(self, sink: Sink, streams: bool, delay: float) -> None:
        self._sink = sink
        self._streams = streams
        self._delay = delay
        self._begun = perf_counter()
        self._over = False

    def cancel(self) -> None:
        post(self._cancel)

    def _cancel(self) -> None:
        self._end(Done("", (), "cancelled"))

    def fail(self, error: Exception) -> None:
        """The answer is an error."""
        if self._delay:
            loop().later(self._delay, self._end, Failed(error))
        else:
            self._end(Failed(error))

    def play(self, done: Done, prompt_tokens: int) -> None:
        """Send the answer's pieces and its end, spread over the delay."""
        pieces = words(done.text) if self._streams else []
        if not self._delay:
            for piece in pieces:
                self._send(piece)
            self._finish(done, prompt_tokens)
            return
        for index, piece in enumerate(pieces):
            loop().later(self._delay * (index + 1) / (len(pieces) + 1), self._send, piece)
        loop().later(self._delay, self._finish, done, prompt_tokens)

    def _send(self, piece: str) -> None:
        if not self._over:
            self._sink(Delta(piece, _ids(piece)))

    def _finish(self, done: Done, prompt_tokens: int) -> None:
        wall_ms = (perf_counter() - self._begun) * 1000
        generated_tokens = len(done.token_ids)
        self._end(replace(done, prompt_tokens=prompt_tokens, generated_tokens=generated_tokens, wall_ms=wall_ms))

    def _end(self, event: Done | Failed) -> None:
        if not self._over:
            self._over = True
            self._sink(event)


def _source(params: SamplingParams) -> str:
    source = "" if params.constraint is None else params.constraint.source
    return source if len(source) <= 80 else source[:77] + "..."


def _ids(text: str) -> tuple[int, ...]:
    return tuple(map(_id, words(text)))


def _id(word: str) -> int:
    return zlib.crc32(word.encode()) & 0xFFFF


def _cut(text: str, params: SamplingParams) -> Done:
    """The answer as a model with these parameters would give it: up to the first stop or max_tokens words."""
    limited = words(text)[: params.max_tokens]
    reason: FinishReason = "length" if len(limited) < len(words(text)) else "stop"
    text = "".join(limited)
    found = find_first(text, params.stop, params.stop_regex)
    if found is None:
        return Done(text, _ids(text), reason)
    position, matched = found
    return Done(text[:position], _ids(text[:position]), "stop", matched=matched)
