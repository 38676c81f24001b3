"""Speculative execution for endpoints: one request that goes on past its stop answers several generations of a program.

A template that alternates texts and generations costs a request for each of them, and the prompt is paid for each time.
So where a program asks for it (`speculative_tokens=N`) a request is sent without its stop strings and with room for N
tokens. Its generation takes what stands before its own stop; where the program goes on as the model did, the next
generations take theirs from the rest, and nothing is sent for them. Where it does not, they are asked for as ever.

After SGLang's num_api_spec_tokens (arXiv 2312.07104, section 5). There a chat model's whole message is matched against
the template when it ends; here each generation is served by itself, so that what comes before another may depend on it.
An answer is never other than one that the model could have given alone: at temperature 0 it is the same one. Above
that, what was drawn is used once; an answer for which N was too little is drawn anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, NamedTuple

from ..runtime.context import Context
from ..runtime.output import find_stop
from ..runtime.request import Delta, Done, SamplingParams
from .remote import Call, Trouble

Body = dict[str, Any]
# How often a chat model that samples is asked anew, where its message must begin with what the program wrote.
_TRIES = 3


def may_overrun(params: SamplingParams) -> bool:
    """Whether a generation may be served from a request that goes on past it."""
    fits = params.constraint is None and params.logprobs is None and params.logprob_start_len is None
    fits = fits and not (params.stop_token_ids or params.stop_regex or params.min_tokens or params.ignore_eos)
    return fits and bool(params.speculative_tokens) and (params.temperature == 0 or params.seed is None)


def without_end(params: SamplingParams, *, with_tokens: bool) -> SamplingParams:
    """The parameters of the request that goes on. with_tokens: whether it asks for the tokens that are generated."""
    most = max(params.max_tokens, params.speculative_tokens)
    return replace(params, stop=(), max_tokens=most, logprobs=0 if with_tokens else None)


def shared_params(params: SamplingParams) -> SamplingParams:
    """What the generations of one request have in common: all parameters but where they end."""
    return replace(params, stop=(), max_tokens=0, speculative_tokens=0)


class Begun(NamedTuple):
    """Where a request goes on: after `text`, which the server is told of or not, behind what `base` stands for."""

    base: bytes
    text: str
    is_sent: bool


@dataclass(slots=True)
class Overrun:
    """What a model wrote where it was not stopped.

    asked: the request but for the text that it went on from, stops and lengths. text: that text, and what the model
    wrote after it. start: the length of that text. is_ended: whether the model came to an end, or was cut off after
    `most` tokens. ends: where in the text each token ends that it wrote, if that is known. num_tokens: how many it
    wrote; 0 where nobody tells. taken: where the parts began that were used.
    """

    asked: tuple[Any, ...]
    text: str
    start: int
    is_ended: bool
    most: int
    ends: list[int]
    num_tokens: int
    taken: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, asked: tuple[Any, ...], before: str, params: SamplingParams, done: Done) -> Overrun:
        """The answer to a request with the parameters `without_end(params)` that went on from `before`."""
        most = max(params.max_tokens, params.speculative_tokens)
        texts = [token.text or "" for token in done.logprobs]
        ends = list(accumulate(map(len, texts), initial=len(before)))[1:] if "".join(texts) == done.text else []
        ended = done.finish_reason == "stop"
        return cls(asked, before + done.text, len(before), ended, most, ends, done.generated_tokens)

    def part(self, before: str, params: SamplingParams) -> Done | None:
        """The answer of a generation after `before`; None where it is not in here."""
        start = len(before)
        if not self.text.startswith(before) or (params.temperature > 0 and start in self.taken):
            return None
        done = self._part(start, params)
        if done is not None:
            self.taken.add(start)
        return done

    def _part(self, start: int, params: SamplingParams) -> Done | None:
        rest = self.text[start:]
        found = find_stop(rest, params.stop)
        size = len(rest) if found is None else found[0] + len(found[1])
        limit = self._limit(start, params.max_tokens)
        if limit is not None and start + size > limit:
            return Done(self.text[start:limit], (), "length", tail=self.text[start:limit])
        if found is None and not self.is_ended:
            is_alone = start == self.start and self.most == params.max_tokens
            return Done(rest, (), "length", tail=rest) if is_alone else None
        if limit is None and self._most_tokens(rest[:size]) > params.max_tokens:
            return None
        text, matched = (rest, None) if found is None else (rest[: found[0]], found[1])
        return Done(text, (), "stop", tail=text, matched=matched)

    def _limit(self, start: int, max_tokens: int) -> int | None:
        """Where so many tokens from a place on end, the one that stands across it included; None if nobody tells."""
        if not self.ends or start < self.start:
            return None
        ends = [end for end in self.ends if end > start]
        return ends[max_tokens - 1] if len(ends) >= max_tokens else len(self.text)

    def _most_tokens(self, text: str) -> int:
        """A number of tokens that a part of the text cannot exceed: no token is shorter than a byte."""
        size = len(text.encode("utf-8", "replace"))
        return min(size, self.num_tokens) if self.num_tokens else size


def known_part(context: Context, asked: tuple[Any, ...], before: str, params: SamplingParams) -> Done | None:
    """The answer of a generation that an earlier request of the run has gone on to."""
    overruns: list[Overrun] = [each for each in context.overruns if each.asked == asked]
    parts = (each.part(before, params) for each in reversed(overruns))
    return next((part for part in parts if part is not None), None)


async def ask_on(
    ask: Callable[[Body], Awaitable[Done]],
    body: Body,
    plain: Body | None,
    asked: tuple[Any, ...],
    begun: Begun,
    params: SamplingParams,
    context: Context,
    call: Call,
) -> Done:
    """Send a request that goes on, and take the generation's part of its answer. Raises Trouble.

    plain: the request with its stops, for where the answer has no such part.
    """
    used: list[Done] = []
    part: Done | None = None
    while part is None and len(used) < (1 if plain is not None or params.temperature == 0 else _TRIES):
        used.append(await ask(body))
        overrun = Overrun.of(asked, begun.text if begun.is_sent else "", params, used[-1])
        context.overruns.append(overrun)
        part = overrun.part(begun.text, params)
    if part is None:
        if plain is None:
            raise _deviation(begun.text, used[-1])
        part = await ask(plain)
        used.append(part)
    if call.wants_deltas:
        call.hand_on(Delta(part.text))
    return _with_usage(part, used)


def _deviation(before: str, done: Done) -> Trouble:
    """Why a chat model's answer cannot be used that should have begun with a text."""
    if done.text.startswith(before):
        return Trouble(
            "the model's answer was cut off, or a generation in it is longer than its max_tokens (give more "
            f"speculative_tokens or max_tokens): {_shown(done.text)}"
        )
    return Trouble(
        f"a chat request cannot continue an assistant message, and the model's own does not begin with "
        f"{_shown(before)}, but: {_shown(done.text)}"
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _with_usage(done: Done, used: list[Done]) -> Done:
    """An answer that took these requests."""
    return replace(
        done,
        prompt_tokens=sum(each.prompt_tokens for each in used),
        cached_tokens=sum(each.cached_tokens for each in used),
        cache_write_tokens=sum(each.cache_write_tokens for each in used),
        generated_tokens=sum(each.generated_tokens for each in used),
    )
