"""/generate: SGLang's own interface, token ids in and out, as far as it is documented and `RuntimeEndpoint` uses it.

A program that runs elsewhere on `RuntimeEndpoint(url)` gives what it gives in this process, since tokens travel as they
are: its prompts as ids, what was generated as ids, and as `tail` what stands behind the last of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from ...backends.local import LocalBackend
from ...ir.errors import RamifyError
from ...runtime.constraint import Constraint
from ...runtime.request import Delta, Done, SamplingParams, TokenLogprob
from ...runtime.tokens import Tokenizer
from .asking import Wanted
from .completions import Given, given_prompts, new_id, of_sample
from .errors import in_words, invalid
from .fields import Generating, NativeGenerating, NativeSampling
from .sampling import check_logprobs, num_samples, sampling_params
from .usage import Counting

# SGLang's own.
_MAX_TOKENS = 128
_OTHER_NAMES = {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens", "sampling_seed": "seed"}
_OURS = ("lark", "calls", "whitespace")


@dataclass(frozen=True)
class _Prompt:
    """A prompt, and from which of its tokens on log-probabilities are told (the first has none); None for none."""

    number: int
    given: Given
    start: int | None


class NativeGeneration:
    """A request of /generate, and how it is answered. Raises ApiError for one that cannot be served."""

    def __init__(self, fields: NativeGenerating, backend: LocalBackend) -> None:
        if (fields.text is None) == (fields.input_ids is None):
            raise invalid("give one of text and input_ids", "text")
        self.streams = fields.stream
        self._fields = fields
        self._tokenizer = backend.tokenizer
        params = _params(fields, backend.model.config.vocab_size)
        name, value = ("text", fields.text) if fields.text is not None else ("input_ids", fields.input_ids)
        prompts = given_prompts(backend, value, name)
        starts = _starts(fields, prompts)
        num = num_samples(_by_our_names(fields.sampling_params))
        self._is_list = num > 1 or (isinstance(value, list) and bool(value) and not isinstance(value[0], int))
        if self.streams and self._is_list:
            raise invalid("a stream is of one prompt and one sample", "stream")
        self.counting = Counting([len(given.token_ids) for given in prompts])
        self._prompts = [
            _Prompt(number, given, start)
            for number, (given, start) in enumerate(zip(prompts, starts, strict=True))
            for _ in range(num)
        ]
        self.wanted = [
            Wanted(each.given.prompt, _of_prompt(of_sample(params, index % num), each))
            for index, each in enumerate(self._prompts)
        ]

    def whole(self, dones: list[Done]) -> Any:
        """The answer: a list, where several were asked for."""
        answers = [self._answer(prompt, done) for prompt, done in zip(self._prompts, dones, strict=True)]
        return answers if self._is_list else answers[0]

    async def pieces(self, events: AsyncGenerator[tuple[int, Delta | Done]]) -> AsyncGenerator[dict[str, Any]]:
        """The answer as it grows: each piece holds all so far."""
        (prompt,) = self._prompts
        text, token_ids, logprobs = "", list[int](), list[TokenLogprob]()
        async for _, event in events:
            if isinstance(event, Done):
                yield self._answer(prompt, event)
                return
            text, token_ids, logprobs = text + event.text, [*token_ids, *event.token_ids], [*logprobs, *event.logprobs]
            yield self._told(prompt, text, token_ids, self._meta(prompt, logprobs, len(token_ids)))

    def _answer(self, prompt: _Prompt, done: Done) -> dict[str, Any]:
        self.counting.count(prompt.number, done)
        token_ids = [*done.token_ids, *([done.matched] if isinstance(done.matched, int) else [])]
        finish = {"type": "stop", "matched": done.matched}
        if done.finish_reason == "length":
            finish = {"type": "length", "length": done.generated_tokens}
        meta = self._meta(prompt, done.logprobs, done.generated_tokens)
        meta |= {"finish_reason": finish, "cached_tokens": done.cached_tokens}
        meta |= self._of_prompt(prompt, done.prompt_logprobs)
        return {**self._told(prompt, done.text, token_ids, meta), "tail": done.tail}

    def _told(self, prompt: _Prompt, text: str, token_ids: list[int], meta: dict[str, Any]) -> dict[str, Any]:
        answer = {"text": text, "output_ids": token_ids, "meta_info": meta}
        if self._fields.return_prompt_token_ids:
            answer["prompt_token_ids"] = prompt.given.token_ids
        return answer

    def _meta(self, prompt: _Prompt, logprobs: Sequence[TokenLogprob], num_generated: int) -> dict[str, Any]:
        meta: dict[str, Any] = {
            "id": self._fields.rid or new_id("gen"),
            "finish_reason": None,
            "prompt_tokens": len(prompt.given.token_ids),
            "completion_tokens": num_generated,
            "cached_tokens": 0,
        }
        if self._fields.return_logprob:
            meta["output_token_logprobs"] = [self._entry(each.logprob, each.token_id) for each in logprobs]
            meta["output_top_logprobs"] = [self._top(each) for each in logprobs]
        return meta

    def _of_prompt(self, prompt: _Prompt, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        if prompt.start is None:
            return {}
        first = self._entry(None, prompt.given.token_ids[prompt.start])
        return {
            "input_token_logprobs": [first, *(self._entry(each.logprob, each.token_id) for each in logprobs)],
            "input_top_logprobs": [None, *map(self._top, logprobs)],
        }

    def _entry(self, logprob: float | None, token_id: int) -> list[Any]:
        return [logprob, token_id, _text(self._tokenizer, token_id) if self._fields.return_text_in_logprobs else None]

    def _top(self, logprob: TokenLogprob) -> list[list[Any]]:
        return [self._entry(value, token_id) for token_id, value in logprob.top]


def _text(tokenizer: Tokenizer, token_id: int) -> str:
    return tokenizer.decode([token_id])


def _by_our_names(given: NativeSampling) -> Generating:
    """The fields as OpenAI's endpoints have them."""
    names = [name for name in given.__struct_fields__ if name not in _OURS]
    return Generating(**{_OTHER_NAMES.get(name, name): getattr(given, name) for name in names})


def _params(fields: NativeGenerating, vocab_size: int) -> SamplingParams:
    given = fields.sampling_params
    params = sampling_params(_by_our_names(given), vocab_size)
    constraint = params.constraint or _constraint(given)
    if constraint is not None:
        constraint = replace(constraint, has_space=given.whitespace)
    num_top = check_logprobs(fields.top_logprobs_num, "top_logprobs_num")
    params = replace(
        params,
        max_tokens=_MAX_TOKENS if given.max_new_tokens is None else given.max_new_tokens,
        constraint=constraint,
        logprobs=num_top if fields.return_logprob else None,
    )
    params.check()
    return params


def _constraint(given: NativeSampling) -> Constraint | None:
    """A constraint that is ramify's own."""
    if given.lark is not None:
        constraint = Constraint("lark", given.lark)
    elif given.calls is not None:
        constraint = Constraint("calls", given.calls)
    else:
        return None
    try:
        constraint.check()
    except (RamifyError, TypeError, ValueError, msgspec.DecodeError) as error:
        raise invalid(f"{constraint.kind}: {in_words(error)}", "sampling_params") from None
    return constraint


def _starts(fields: NativeGenerating, prompts: Sequence[Given]) -> list[int | None]:
    """From where on each prompt's log-probabilities are told. Raises ApiError."""
    given = fields.logprob_start_len
    starts = given if isinstance(given, list) else [-1 if given is None else given] * len(prompts)
    if len(starts) != len(prompts):
        raise invalid(f"logprob_start_len has {len(starts)} numbers for {len(prompts)} prompts", "logprob_start_len")
    for start, prompt in zip(starts, prompts, strict=True):
        if not -1 <= start < len(prompt.token_ids):
            text = f"logprob_start_len is {start}, and the prompt has {len(prompt.token_ids)} tokens"
            raise invalid(text, "logprob_start_len")
    return [start if start >= 0 and fields.return_logprob else None for start in starts]


def _of_prompt(params: SamplingParams, prompt: _Prompt) -> SamplingParams:
    return params if prompt.start is None else replace(params, logprob_start_len=prompt.start + 1)
