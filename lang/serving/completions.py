"""/v1/completions: text, or token ids, after a prompt that is text or token ids."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any

from ...backends.local import LocalBackend
from ...runtime.context import Context
from ...runtime.prompt import Prompt
from ...runtime.request import Delta, Done, SamplingParams, TokenLogprob
from ...runtime.seeds import sample_seed
from .asking import Wanted
from .errors import invalid
from .fields import Completing
from .sampling import check_logprobs, num_samples, sampling_params
from .told_logprobs import Names, text_logprobs
from .usage import Counting

# OpenAI's own.
_MAX_TOKENS = 16


@dataclass(frozen=True)
class Given:
    """A prompt: as it is asked with, its tokens, and its text for an echo."""

    prompt: Prompt
    token_ids: list[int]
    text: str


@dataclass
class _Choice:
    """One of the answers. number: its prompt's. offset: the next token's place in its text, in characters."""

    number: int
    prompt: Given
    offset: int = 0


class Completion:
    """A request for text completions, and how it is answered. Raises ApiError for one that cannot be served."""

    def __init__(self, fields: Completing, backend: LocalBackend, model: str) -> None:
        self.wanted: list[Wanted] = []
        self.streams = bool(fields.stream)
        self._num_logprobs = check_logprobs(fields.logprobs, "logprobs")
        self._echo = bool(fields.echo)
        self._names = Names(backend.tokenizer, by_id=bool(fields.return_tokens_as_token_ids))
        self._check(fields)
        params = self._params(fields, backend.model.config.vocab_size)
        prompts = given_prompts(backend, fields.prompt)
        self.counting = Counting([len(given.token_ids) for given in prompts])
        self._choices: list[_Choice] = []
        for number, given in enumerate(prompts):
            for sample in range(num_samples(fields)):
                self.wanted.append(Wanted(given.prompt, of_sample(params, sample)))
                self._choices.append(_Choice(number, given))
        self._usage_at_end = fields.stream_options is not None and fields.stream_options.include_usage
        self._head = {"id": new_id("cmpl"), "object": "text_completion", "created": int(time.time()), "model": model}

    def _check(self, fields: Completing) -> None:
        if fields.suffix:
            raise invalid("suffix is not supported: models here write on from a prompt's end", "suffix")
        if fields.best_of is not None and fields.best_of != num_samples(fields):
            raise invalid("best_of is not supported beyond n: ask for n samples with logprobs, and choose", "best_of")
        if self._echo and self.streams and self._num_logprobs is not None:
            raise invalid("echo with logprobs is not streamed, since they are known at the end only", "echo")
        check_stream_options(fields.stream_options is not None, self.streams)

    def _params(self, fields: Completing, vocab_size: int) -> SamplingParams:
        params = replace(
            sampling_params(fields, vocab_size),
            max_tokens=_MAX_TOKENS if fields.max_tokens is None else fields.max_tokens,
            logprobs=self._num_logprobs,
            logprob_start_len=0 if self._echo and self._num_logprobs is not None else None,
        )
        params.check()
        return params

    def whole(self, dones: list[Done]) -> dict[str, Any]:
        """The answer."""
        for choice, done in zip(self._choices, dones, strict=True):
            self.counting.count(choice.number, done)
        choices = [self._whole(index, done) for index, done in enumerate(dones)]
        return {**self._head, "choices": choices, "usage": self.counting.usage()}

    def _whole(self, index: int, done: Done) -> dict[str, Any]:
        choice = self._choices[index]
        text = choice.prompt.text + done.text if self._echo else done.text
        token_ids, logprobs = list(done.token_ids), list[TokenLogprob | None](done.logprobs)
        if self._echo:
            token_ids = choice.prompt.token_ids + token_ids
            logprobs = [None] * bool(choice.prompt.token_ids) + list(done.prompt_logprobs) + logprobs
        told = self._logprobs(choice, token_ids, logprobs)
        return self._choice(index, text, told, done)

    def _choice(self, index: int, text: str, logprobs: Any, done: Done | None) -> dict[str, Any]:
        finish = None if done is None else done.finish_reason
        matched = None if done is None else done.matched
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish, "stop_reason": matched}

    def _logprobs(self, choice: _Choice, token_ids: list[int], logprobs: list[TokenLogprob | None]) -> Any:
        if self._num_logprobs is None:
            return None
        told, choice.offset = text_logprobs(token_ids, logprobs, self._num_logprobs, choice.offset, self._names)
        return told

    async def pieces(self, events: AsyncGenerator[tuple[int, Delta | Done]]) -> AsyncGenerator[dict[str, Any]]:
        """The answer as it grows. Of what `echo` asks for the first piece of each choice has all."""
        unsaid = set(range(len(self._choices))) if self._echo else set()
        async for index, event in events:
            choice = self._choices[index]
            if index in unsaid:
                unsaid.remove(index)
                yield self._piece(self._choice(index, choice.prompt.text, None, None))
            if isinstance(event, Done):
                self.counting.count(choice.number, event)
                yield self._piece(self._choice(index, event.closing, None, event))
            elif event.text or event.logprobs:
                told = self._logprobs(choice, list(event.token_ids), list(event.logprobs))
                yield self._piece(self._choice(index, event.text, told, None))
        if self._usage_at_end:
            yield {**self._head, "choices": [], "usage": self.counting.usage()}

    def _piece(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self._head, "choices": [choice]}


def of_sample(params: SamplingParams, number: int) -> SamplingParams:
    """The parameters of one of several samples: a seed is the first one's, the others' come from it."""
    return params if params.seed is None or not number else replace(params, seed=sample_seed(params.seed, number))


def given_prompts(backend: LocalBackend, given: Any, field: str = "prompt") -> list[Given]:
    """The prompts that a field holds: a text, token ids, or a list of texts or of lists of ids. Raises ApiError."""
    if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int)):
        return [_given(backend, given, field)]
    if not isinstance(given, list) or not given:
        raise invalid(f"{field} is a text, a list of token ids, or a list of these, and not empty", field)
    return [_given(backend, each, f"{field}[{index}]") for index, each in enumerate(given)]


def _given(backend: LocalBackend, given: Any, place: str) -> Given:
    root = Context(backend).root()
    if isinstance(given, str):
        prompt = root.append_text(given)
        token_ids = backend.tokens.prepare(prompt).run(warns=False).token_ids
        if not token_ids:
            raise invalid(f"{place} is empty, and the model has no token that begins a text", place)
        return Given(prompt, token_ids, given)
    vocab_size = backend.model.config.vocab_size
    if not isinstance(given, list) or not given:
        raise invalid(f"{place} is a text or a list of token ids, and not empty", place)
    for index, each in enumerate(given):
        if type(each) is not int or not 0 <= each < vocab_size:
            raise invalid(f"{place}[{index}] is {each!r}, which is no token id below {vocab_size}", place)
    backend.tokens.begin(root, given)
    return Given(root, given, backend.tokenizer.decode(given))


def check_stream_options(given: bool, streams: bool) -> None:
    """Raises ApiError for options of a stream where there is none."""
    if given and not streams:
        raise invalid('stream_options needs "stream": true', "stream_options")


def new_id(kind: str) -> str:
    """A name for an answer."""
    return f"{kind}-{token_hex(12)}"
