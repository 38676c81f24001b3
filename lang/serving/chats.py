"""/v1/chat/completions: an assistant's answer to messages."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from ...backends.local import LocalBackend
from ...runtime.prompt import Prompt
from ...runtime.request import Delta, Done, SamplingParams, TokenLogprob
from .asking import Wanted
from .completions import check_stream_options, new_id, of_sample
from .conversations import conversation
from .errors import invalid
from .fields import Chatting
from .sampling import check_logprobs, num_samples, sampling_params
from .told_logprobs import Names, chat_logprobs
from .tool_calls import Calling, calling, declared_tools
from .usage import Counting


class Chat:
    """A chat request, and how it is answered. Raises ApiError for one that cannot be served.

    max_tokens: of an answer whose request does not say it.
    """

    def __init__(self, fields: Chatting, backend: LocalBackend, model: str, max_tokens: int) -> None:
        self.streams = bool(fields.stream)
        self._names = Names(backend.tokenizer, by_id=bool(fields.return_tokens_as_token_ids))
        _check(fields)
        tools = declared_tools(fields)
        prompt = conversation(backend, fields.messages, tools, continues=bool(fields.continue_final_message))
        self._calling = calling(fields, tools, prompt)
        prompt_len = len(backend.tokens.prepare(prompt).run(warns=False).token_ids)
        room = backend.model.config.context_length - prompt_len
        params = _params(fields, backend, self._calling, min(max_tokens, max(1, room)))
        self._wanted(prompt, params, num_samples(fields))
        self.counting = Counting([prompt_len])
        self._has_logprobs = params.logprobs is not None
        self._usage_at_end = fields.stream_options is not None and fields.stream_options.include_usage
        self._head = {"id": new_id("chatcmpl"), "created": int(time.time()), "model": model}

    def _wanted(self, prompt: Prompt, params: SamplingParams, num: int) -> None:
        self.wanted = [Wanted(prompt, of_sample(params, number)) for number in range(num)]

    def whole(self, dones: list[Done]) -> dict[str, Any]:
        """The answer."""
        for done in dones:
            self.counting.count(0, done)
        choices = [self._whole(index, done) for index, done in enumerate(dones)]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self.counting.usage()}

    def _whole(self, index: int, done: Done) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": done.text, "refusal": None}
        words, calls = self._calling.read(done.text) if self._calling is not None else (done.text, [])
        if calls:
            message |= {"content": words or None, "tool_calls": calls}
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(done.logprobs),
            "finish_reason": "tool_calls" if calls else done.finish_reason,
            "stop_reason": done.matched,
        }

    def _logprobs(self, logprobs: tuple[TokenLogprob, ...]) -> Any:
        return chat_logprobs(logprobs, self._names) if self._has_logprobs else None

    async def pieces(self, events: AsyncGenerator[tuple[int, Delta | Done]]) -> AsyncGenerator[dict[str, Any]]:
        """The answer as it grows. Calls come when they are whole, each in one piece."""
        growing: dict[int, _Growing] = {}
        async for index, event in events:
            if index not in growing:
                growing[index] = _Growing(self._calling)
                yield self._piece(index, {"role": "assistant", "content": "", "refusal": None})
            if isinstance(event, Delta):
                text = growing[index].take(event.text)
                if text or (event.logprobs and self._has_logprobs):
                    yield self._piece(index, {"content": text}, self._logprobs(event.logprobs))
                continue
            self.counting.count(0, event)
            text, calls = growing[index].end(event.text)
            if text:
                yield self._piece(index, {"content": text})
            if calls:
                yield self._piece(index, {"tool_calls": [{"index": i, **call} for i, call in enumerate(calls)]})
            yield self._piece(index, {}, None, event, "tool_calls" if calls else event.finish_reason)
        if self._usage_at_end:
            yield {**self._chunk(), "choices": [], "usage": self.counting.usage()}

    def _chunk(self) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk"}

    def _piece(
        self, index: int, delta: dict[str, Any], logprobs: Any = None, done: Done | None = None, finish: Any = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        if done is not None:
            choice["stop_reason"] = done.matched
        return {**self._chunk(), "choices": [choice]}


class _Growing:
    """The text of an answer as far as it was sent: what may be the beginning of calls is held back."""

    def __init__(self, calling: Calling | None) -> None:
        self._calling = calling
        self._text = ""
        self._num_sent = 0

    def take(self, text: str) -> str:
        """What may be sent now that the text has grown."""
        self._text += text
        return self._send(len(self._text) if self._calling is None else self._calling.num_words(self._text))

    def end(self, whole: str) -> tuple[str, list[dict[str, Any]]]:
        """What is still to be sent, now that the whole text is known, and its calls."""
        self._text = whole
        words, calls = self._calling.read(whole) if self._calling is not None else (whole, [])
        return self._send(len(words)), calls

    def _send(self, stop: int) -> str:
        start, self._num_sent = self._num_sent, max(stop, self._num_sent)
        return self._text[start : self._num_sent]


def _check(fields: Chatting) -> None:
    """Raises ApiError for what is not supported."""
    if fields.modalities not in (None, ["text"]):
        raise invalid('the only modality is ["text"]', "modalities")
    if fields.store:
        raise invalid("this server stores no answers", "store")
    if fields.service_tier not in (None, "auto", "default"):
        raise invalid("this server has one service tier", "service_tier")
    if fields.add_generation_prompt is not None and fields.add_generation_prompt is bool(fields.continue_final_message):
        raise invalid(
            "the answer begins a message of the assistant (add_generation_prompt) or goes on with the last one "
            "(continue_final_message): one of them",
            "add_generation_prompt",
        )
    if fields.top_logprobs is not None and not fields.logprobs:
        raise invalid('top_logprobs needs "logprobs": true', "top_logprobs")
    if fields.parallel_tool_calls is not None and not fields.tools:
        raise invalid("parallel_tool_calls needs tools", "parallel_tool_calls")
    check_stream_options(fields.stream_options is not None, bool(fields.stream))


def _params(fields: Chatting, backend: LocalBackend, calling: Calling | None, max_tokens: int) -> SamplingParams:
    params = sampling_params(fields, backend.model.config.vocab_size)
    if calling is not None:
        if params.constraint is not None:
            raise invalid("tools that may be called and a response_format exclude each other", "response_format")
        params = replace(params, constraint=calling.constraint)
    given = [each for each in (fields.max_completion_tokens, fields.max_tokens) if each is not None]
    if len(set(given)) > 1:
        raise invalid("max_tokens and max_completion_tokens differ", "max_tokens")
    params = replace(
        params,
        max_tokens=given[0] if given else max(max_tokens, params.min_tokens),
        logprobs=(check_logprobs(fields.top_logprobs, "top_logprobs") or 0) if fields.logprobs else None,
    )
    params.check()
    return params
