"""Anthropic's models, through Anthropic's own client (`pip install ramify[anthropic]`).

They get messages, as chat models of OpenAI-compatible servers do. What their interface lacks is refused before anything
is sent; of prompts that are gone on from, or long, their servers are asked to keep the beginnings.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

try:
    import anthropic
    import httpx2
    from anthropic import AsyncAnthropic
except ImportError as error:
    raise ImportError(f"{error}; Anthropic's models need more packages: pip install 'ramify[anthropic]'") from error

import msgspec

from ..ir.errors import Unsupported, UsageError
from ..runtime.backend import Handle, Sink
from ..runtime.chat import ChatFormat
from ..runtime.output import find_stop
from ..runtime.prices import Prices, checked
from ..runtime.prompt import Prompt
from ..runtime.request import Delta, Done, SamplingParams
from .anthropic_wire import Event, Events, Reply, mark, prompt_fields, tool_fields
from .lanes import connecting
from .messages import conversation
from .native_tools import SHOWN_CALLS, asking_for_calls, declaring
from .overrun import Begun, ask_on, known_part, may_overrun, shared_params, without_end
from .remote import Call, Remote, Retry, Traffic, Trouble, decode, nothing, server_sent, tell, timeouts
from .strict_schema import strict_schema
from .wire import Collector

if TYPE_CHECKING:
    from anthropic._response import AsyncAPIResponse

_RETRY = Retry()
_SHOWN = replace(
    ChatFormat.from_marks(
        {role: (f"{role.upper()}: ", "\n") for role in ("system", "user", "assistant", "tool", "developer")}
    ),
    calls=SHOWN_CALLS,
    sends_tools=True,
)
_NO_LOGPROBS = "Anthropic's interface tells no log-probabilities; run on another backend, or let a gen answer"
_NO_SAMPLING = (
    "Anthropic's newer models choose by themselves how they sample; for one that takes temperature, top_p and top_k: "
    "Anthropic(..., sampling=True)"
)
# The last version of the interface that takes sampling parameters; the client's own is newer.
_WITH_SAMPLING = "2023-06-01"
_FEATURES = frozenset(("json_schema", "tools", "images"))
_REASONS = {name: _NO_LOGPROBS for name in ("select", "score", "logprobs", "prompt_logprobs")} | {"top_k": _NO_SAMPLING}


class Anthropic:
    """A model of Anthropic's.

    api_key, base_url: as Anthropic's client takes them, else ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL. sampling: the
    model takes temperature, top_p and top_k, as those do that know the interface's version of 2023; others sample in
    their own way, and temperature 0 means nothing to them.
    continue_final_message: let the model continue an assistant message that the program began, which not all of them
    can. keep_prompts: ask the server to keep the system prompt, what branches begin with, and what the program goes on
    from; what it has kept costs less for some minutes, and to keep it costs more than not to. max_connections, retry,
    requests_per_minute, tokens_per_minute, head_start: see Traffic. timeout: seconds for which the server may be
    silent. prices: what tokens cost, for the usage of runs. Raises UsageError.
    """

    is_chat_model = True

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        sampling: bool = False,
        continue_final_message: bool = False,
        keep_prompts: bool = True,
        max_connections: int = 64,
        timeout: float = 600.0,
        retry: Retry = _RETRY,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        head_start: float = 0.5,
        prices: Prices | None = None,
    ) -> None:
        self.name = f"anthropic:{model}"
        self.model = model
        self.prices = checked(prices)
        self.chat = _SHOWN
        self.features = _FEATURES | {"top_k"} if sampling else _FEATURES
        self.reasons = _REASONS
        self.continues_messages = continue_final_message
        self._keeps_prompts = keep_prompts
        self._takes_sampling = sampling
        traffic = Traffic(max_connections, retry, requests_per_minute, tokens_per_minute, head_start)
        self._remote = Remote(self.name, partial(self._connect, base_url, api_key, timeout, traffic), traffic)

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Sink) -> Handle:
        """See Backend. Raises Unsupported for a prompt or parameters that the server would not take as they are."""
        if params.max_tokens == 0:
            return self._remote.send(nothing, sink, None)
        body = self._sampling(params)
        if not self._takes_sampling:
            params = replace(params, temperature=1.0)  # an answer is one of many, as far as anyone knows
        goes_on = may_overrun(params)
        fields, begun = self._prompt(prompt, params, sink, goes_on=goes_on)
        asked = (begun.base, b"", shared_params(params))
        if goes_on and (known := known_part(prompt.context, asked, begun.text, params)) is not None:
            return tell(known, sink)
        plain = fields | body if begun.is_sent else None
        if goes_on:
            on = without_end(params, with_tokens=False)
            work = partial(
                ask_on, self._whole, fields | self._sampling(on), plain, asked, begun, params, prompt.context
            )
            return self._remote.send(work, sink, _prompt_of(fields), on.max_tokens)
        assert plain is not None
        if sink.wants_deltas and not _blank(params):
            plain |= {"stream": True}
        work = partial(self._ask, plain, _blank(params))
        return self._remote.send(work, sink, _prompt_of(fields), params.max_tokens)

    def close(self) -> None:
        """See Backend."""
        self._remote.close()

    def check(self, params: SamplingParams) -> None:
        """Raises Unsupported for parameters of a generation that the server would not take as they are."""
        self._sampling(params)

    def _prompt(
        self, prompt: Prompt, params: SamplingParams, sink: Sink, *, goes_on: bool
    ) -> tuple[dict[str, Any], Begun]:
        """The fields of the prompt and of tools, and the text of the last message that the model goes on from."""
        talk = conversation(prompt)
        messages, text = talk.messages, ""
        if talk.continued:
            text = messages[-1]["content"]
            self._check_continuing(text, goes_on=goes_on and len(messages) > 1)
        is_sent = not talk.continued or self.continues_messages
        base = messages[:-1] if talk.continued else messages
        fields, places = prompt_fields(messages if is_sent else base)
        fields |= self._tools(prompt, params)
        if self._keeps_prompts:
            ends = {places[number] for number in _shared(prompt) if number < len(places)} | {-1}
            mark(fields, ends | {places[len(base) - 1]} if sink.use.keep else ends)
        return fields, Begun(msgspec.json.encode(base), text, is_sent)

    def _check_continuing(self, text: Any, *, goes_on: bool) -> None:
        if self.continues_messages and isinstance(text, str) and text == text.rstrip():
            return
        if not self.continues_messages and goes_on and isinstance(text, str):
            return
        what = "ends in white space" if self.continues_messages else "the program began"
        raise Unsupported(
            f"a request to Anthropic's models cannot continue an assistant message that {what}: {text!r:.60}",
            help="begin the assistant's message with the generation; or give speculative_tokens=N; or, for a model "
            "that can, Anthropic(..., continue_final_message=True), with no space before the generation",
        )

    def _tools(self, prompt: Prompt, params: SamplingParams) -> dict[str, Any]:
        """The fields for tools: those that may be called, else those that the conversation has declared."""
        if params.constraint is not None and params.constraint.kind == "calls":
            return tool_fields(asking_for_calls(params.constraint))
        if prompt.message is not None and prompt.message.tools:
            return tool_fields(declaring(prompt.message.tools))
        return {}

    def _sampling(self, params: SamplingParams) -> dict[str, Any]:
        body: dict[str, Any] = {"max_tokens": params.max_tokens, **self._drawing(params)}
        stops = [stop for stop in params.stop if stop.strip()]
        if stops:
            body["stop_sequences"] = stops
        if params.constraint is not None and params.constraint.kind == "json_schema":
            described = {"type": "json_schema", "schema": strict_schema(params.constraint.source)}
            body["output_config"] = {"format": described}
        return body

    def _drawing(self, params: SamplingParams) -> dict[str, Any]:
        """The fields that say how to draw a token, but for the interface's own defaults."""
        if params.temperature > 1:
            raise Unsupported(f"Anthropic's models take temperatures from 0 to 1, not {params.temperature:g}")
        if self._takes_sampling:
            given = {"temperature": params.temperature, "top_p": params.top_p, "top_k": params.top_k or None}
            return {name: value for name, value in given.items() if value not in (None, 1.0)}
        if params.temperature not in (0, 1) or params.top_p != 1:
            asked = f"temperature {params.temperature:g}, top_p {params.top_p:g}"
            raise Unsupported(f"this model takes no sampling parameters: {asked}", help=_NO_SAMPLING)
        return {}

    def _connect(self, base_url: str | None, api_key: str | None, timeout: float, traffic: Traffic) -> AsyncAnthropic:
        version = {"anthropic-version": _WITH_SAMPLING} if self._takes_sampling else None
        return _connect(base_url, api_key, traffic, timeout, version)

    async def _ask(self, body: dict[str, Any], blank: tuple[str, ...], call: Call) -> Done:
        """Send one request and collect its answer. Raises Trouble."""
        if "stream" not in body:
            done = _cut(await self._whole(body), blank)
            if call.wants_deltas:
                call.hand_on(Delta(done.text))
            return done
        collector, events = Collector(), Events()
        async with self._asked(body) as response:
            async for data in server_sent(response.iter_bytes()):
                for answer in events.answers(decode(data, Event)):
                    text, _ = collector.take(answer)
                    if text:
                        call.hand_on(Delta(text))
        if collector.calls:
            call.hand_on(Delta(collector.calls))
        return collector.done()

    async def _whole(self, body: dict[str, Any]) -> Done:
        """The whole answer to a request. Raises Trouble."""
        collector = Collector()
        async with self._asked(body) as response:
            is_json = "json" in response.headers.get("content-type", "")
            collector.take(decode(await response.read(), Reply, is_json=is_json).answer())
        return collector.done()

    @asynccontextmanager
    async def _asked(self, body: dict[str, Any]) -> AsyncIterator[AsyncAPIResponse[Any]]:
        """The response to a request, closed at the end. Raises Trouble for whatever the client raises."""
        create = self._remote.client.messages.with_streaming_response.create
        try:
            async with create(model=self.model, messages=[], max_tokens=1, extra_body=body) as response:
                yield response
        except anthropic.APIStatusError as error:
            message = _message(error.body) or error.message
            text = f"the server answered {error.status_code}: {message}"
            raise Trouble.of_status(error.status_code, text, error.response.headers) from error
        except (anthropic.APIConnectionError, httpx2.TransportError) as error:
            raise Trouble.of_connection(error) from error


def _message(body: object) -> str | None:
    """What an error's body says."""
    error = body.get("error") if isinstance(body, dict) else None
    return error.get("message") if isinstance(error, dict) else None


def _blank(params: SamplingParams) -> tuple[str, ...]:
    """The stop strings that the interface does not take: those of white space alone."""
    return tuple(stop for stop in params.stop if not stop.strip())


def _cut(done: Done, stops: tuple[str, ...]) -> Done:
    """An answer up to the first of these stops."""
    found = find_stop(done.text, stops)
    if found is None:
        return done
    text = done.text[: found[0]]
    return replace(done, text=text, tail=text, finish_reason="stop", matched=found[1])


def _shared(prompt: Prompt) -> list[int]:
    """The numbers of the messages that branches of the run begin with, up to where they part."""
    found, number = [], -1
    for node in prompt.since(None):
        if node.kind == "role" and not node.open:
            number += 1
        if (node.kind == "fork" or node.children > 1) and number >= 0:
            found.append(number)
    return found


def _prompt_of(fields: dict[str, Any]) -> bytes:
    """What a server's cache knows a request by."""
    return msgspec.json.encode([fields.get("tools"), fields.get("system"), fields["messages"]])


def _connect(
    base_url: str | None, api_key: str | None, traffic: Traffic, timeout: float, headers: dict[str, str] | None
) -> AsyncAnthropic:
    url = base_url or os.environ.get("ANTHROPIC_BASE_URL") or ""
    try:
        client = AsyncAnthropic(
            base_url=base_url,
            api_key=api_key,
            max_retries=0,
            default_headers=headers,
            http_client=anthropic.DefaultAsyncHttpxClient(
                **connecting(traffic.max_connections, is_plain=url.lower().startswith("http:")),
                timeout=timeouts(timeout),
            ),
        )
    except anthropic.AnthropicError as error:
        raise UsageError(f"Anthropic's client: {error}", help="give api_key=..., or set ANTHROPIC_API_KEY") from error
    if client.api_key is None and client.auth_token is None and client.credentials is None:
        raise UsageError("Anthropic's client has no key", help="give api_key=..., or set ANTHROPIC_API_KEY")
    return client
