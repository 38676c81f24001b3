"""Any OpenAI-compatible server, through OpenAI's own client (`pip install ramify[openai]`).

A chat model gets the prompt's messages, a model with text completions its text. What the server's kind cannot do is
refused before anything is sent (backends/flavours.py says which kind takes what).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

try:
    import httpx2
    import openai
    from openai import AsyncOpenAI
except ImportError as error:
    raise ImportError(f"{error}; servers need more packages: pip install 'ramify[openai]'") from error

from ..ir.errors import Unsupported, UsageError
from ..runtime.backend import Handle, Sink
from ..runtime.chat import DEFAULT_CHAT, ChatFormat
from ..runtime.prices import Prices, checked
from ..runtime.prompt import Prompt
from ..runtime.request import Delta, Done, SamplingParams
from .chats import chat_format
from .echo import echo_fields, echoed_scores
from .flavours import FLAVOURS, Flavour
from .lanes import connecting
from .messages import Conversation, conversation
from .native_tools import SHOWN_CALLS, asking_for_calls, declaring
from .overrun import Begun, ask_on, known_part, may_overrun, shared_params, without_end
from .remote import Call, Remote, Retry, Traffic, Trouble, decode, nothing, server_sent, tell, timeouts
from .scoring import nothing_before
from .wire import Answer, Collector

if TYPE_CHECKING:
    from openai._response import AsyncAPIResponse

_RETRY = Retry()
# OpenAI's client gives the response itself where it finds the second of these.
_HEADERS = {"content-type": "application/json", "x-stainless-raw-response": "stream"}
# How messages are shown where a chat model's prompt is read as text; the server uses the model's own template.
_SHOWN = ChatFormat.from_marks(
    {role: (f"{role.upper()}: ", "\n") for role in ("system", "user", "assistant", "tool", "developer")}
)
_SHOWN_WITH_CALLS = replace(_SHOWN, calls=SHOWN_CALLS, sends_tools=True)
_NO_SCORES = (
    "choosing and scoring need the prompt's log-probabilities, which text completions of some servers tell: "
    "OpenAI(..., is_chat_model=False, flavour='vllm'), or echo_logprobs=True; or let the server choose under a "
    "constraint: constrained_select=True"
)
_TEXT_MODELS = ("davinci-", "babbage-", "gpt-3.5-turbo-instruct")


class OpenAI:
    """A model behind an OpenAI-compatible server.

    base_url, api_key: as OpenAI's client takes them, else OPENAI_BASE_URL and OPENAI_API_KEY. is_chat_model: None
    tells by the name; False for text completions. flavour: what kind of server it is ("openai", "compatible",
    "vllm", "sglang", "llama.cpp", "llama-cpp-python", "ramify"), which decides what it takes; None is "openai" for
    OpenAI's own, else "compatible". chat_template: how messages are marked in the text of a model without chats.
    continue_final_message: let the server continue an assistant message that the program began (where it can: vllm,
    sglang, llama.cpp). constrained_select: choose by generating under a constraint (same servers), which follows
    the likelier tokens and not the likelier whole. echo_logprobs: whether text completions tell the prompt's log-
    probabilities, which is what scores and choices are made of; None is yes for vllm. native_tools: whether
    gen(tools=) goes through the server's own interface for tools; None is yes for "openai", others may have to be
    started for it. max_connections, retry, requests_per_minute, tokens_per_minute, head_start: see Traffic. timeout:
    seconds for which the server may be silent. prices: what tokens cost, for the usage of runs. Raises UsageError.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        is_chat_model: bool | None = None,
        flavour: str | None = None,
        chat_template: str | Path | ChatFormat | None = None,
        continue_final_message: bool = False,
        constrained_select: bool = False,
        echo_logprobs: bool | None = None,
        native_tools: bool | None = None,
        max_connections: int = 64,
        timeout: float = 600.0,
        retry: Retry = _RETRY,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        head_start: float = 0.5,
        prices: Prices | None = None,
    ) -> None:
        self.name = f"openai:{model}"
        self.reasons = {"select": _NO_SCORES, "score": _NO_SCORES}
        self.model = model
        self.is_chat_model = not model.startswith(_TEXT_MODELS) if is_chat_model is None else is_chat_model
        self.prices = checked(prices)
        traffic = Traffic(max_connections, retry, requests_per_minute, tokens_per_minute, head_start)
        self._remote = Remote(self.name, partial(_connect, base_url, api_key, traffic, timeout), traffic)
        self.flavour = _flavour(flavour, self._remote.client)
        self._has_tools = self.is_chat_model and self.flavour.has_tools if native_tools is None else native_tools
        if self._has_tools and not self.is_chat_model:
            raise UsageError("text completions have no interface for tools", help="leave native_tools out")
        self.chat = self._chat(chat_template)
        self._continues = self._continuation(continue_final_message)
        self._choice = self.flavour.choice if constrained_select else None
        if constrained_select and self._choice is None:
            raise self._unable("choose under a constraint", "constrained_select", lambda each: each.choice)
        scores = not self.is_chat_model and (self.flavour.echoes_logprobs if echo_logprobs is None else echo_logprobs)
        self.features = self.flavour.features(is_chat=self.is_chat_model) | _choosing(scores, constrained_select)
        if self.is_chat_model and self.flavour.takes_images:
            self.features |= {"images"}
        if self._has_tools:
            self.features |= {"tools"}

    def _chat(self, template: str | Path | ChatFormat | None) -> ChatFormat:
        if not self.is_chat_model:
            return DEFAULT_CHAT if template is None else chat_format(template)
        if template is not None:
            raise UsageError(
                "a chat model's server has its own chat template",
                help="leave chat_template out, or is_chat_model=False",
            )
        return _SHOWN_WITH_CALLS if self._has_tools else _SHOWN

    def _continuation(self, wanted: bool) -> dict[str, Any] | None:
        if not wanted:
            return None
        if self.flavour.continues is None:
            raise self._unable("continue an assistant message", "continue_final_message", lambda each: each.continues)
        return dict(self.flavour.continues)

    def _unable(self, what: str, option: str, ability: Callable[[Flavour], object]) -> UsageError:
        able = ", ".join(repr(each.name) for each in FLAVOURS.values() if ability(each) is not None)
        return UsageError(
            f"a server of flavour {self.flavour.name!r} cannot {what}",
            help=f"leave {option} out; flavours that can: {able}",
        )

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Sink) -> Handle:
        """See Backend. Raises Unsupported for a prompt or parameters that the server would not take as they are."""
        if params.max_tokens and may_overrun(params):
            return self._generate_on(prompt, params, sink)
        body = self._prompt(prompt) | self._tools(prompt, params) | self._sampling(params)
        if params.max_tokens == 0:
            return self._remote.send(nothing, sink, None)
        if sink.wants_deltas and (self.flavour.holds_stops_back or not params.stop):
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        work = partial(self._ask, body, params.logprobs)
        return self._remote.send(work, sink, _prompt_of(body), params.max_tokens)

    def _generate_on(self, prompt: Prompt, params: SamplingParams, sink: Sink) -> Handle:
        """The same by a request that goes on past the generation, or by one that has gone on to it."""
        fields, begun = self._begun(prompt)
        tools = self._tools(prompt, params)
        asked = (begun.base, msgspec.json.encode(tools), shared_params(params))
        known = known_part(prompt.context, asked, begun.text, params)
        if known is not None:
            return tell(known, sink)
        on = without_end(params, with_tokens=self.flavour.tells_tokens)
        body = fields | tools | self._sampling(on)
        plain = fields | tools | self._sampling(params) if begun.is_sent else None
        work = partial(ask_on, self._whole, body, plain, asked, begun, params, prompt.context)
        return self._remote.send(work, sink, _prompt_of(body), on.max_tokens)

    def select(self, prompt: Prompt, choices: Sequence[str], sink: Sink) -> Call:
        """See Selector. The server generates greedily, and may generate nothing but one of the choices."""
        assert self._choice is not None
        most = max(len(choice.encode()) for choice in choices) + 1  # no token is shorter than a byte
        body = self._prompt(prompt) | self._sampling(SamplingParams(max_tokens=most)) | dict(self._choice(choices))
        return self._remote.send(partial(self._choose, body, choices), sink, _prompt_of(body), most)

    def score(self, prompt: Prompt, texts: Sequence[str], sink: Sink, *, unconditional: bool = False) -> Call:
        """See Scorer. The tokens that differ from the prompt's own are scored. Raises RequestError, Unsupported."""
        if unconditional:
            raise Unsupported(
                "scoring without the prompt needs the model's tokenizer, which is not here",
                help="use another choice method",
            )
        before = str(prompt.text_value())
        if texts and not before:
            raise nothing_before(texts[0])
        return self._remote.send(partial(self._score, before, texts), sink, before.encode("utf-8", "replace"))

    def close(self) -> None:
        """See Backend."""
        self._remote.close()

    def check(self, params: SamplingParams) -> None:
        """Raises Unsupported for parameters of a generation that the server would not take as they are."""
        self._sampling(params)

    @property
    def continues_messages(self) -> bool:
        """Whether it can go on with an assistant message that the program began."""
        return not self.is_chat_model or self._continues is not None

    def _prompt(self, prompt: Prompt) -> dict[str, Any]:
        if not self.is_chat_model:
            return {"prompt": prompt.text_value()}
        talk = self._conversation(prompt)
        if not talk.continued:
            return {"messages": talk.messages}
        if self._continues is None:
            raise Unsupported(
                "a chat request cannot continue an assistant message that the program began: "
                f"{_shown(str(talk.messages[-1]['content']))}",
                help="begin the assistant's message with the generation; or, where the server can continue it, say so "
                "with OpenAI(..., flavour='vllm', continue_final_message=True); or give speculative_tokens=N",
            )
        return {"messages": talk.messages, **self._continues}

    def _begun(self, prompt: Prompt) -> tuple[dict[str, Any], Begun]:
        """The prompt's fields, and the text in them that the model goes on from.

        What a chat server cannot go on from is left out: then the model has to begin with it by itself.
        """
        if not self.is_chat_model:
            text = str(prompt.text_value())
            return {"prompt": text}, Begun(b"", text, True)
        talk = self._conversation(prompt)
        if not talk.continued:
            return {"messages": talk.messages}, Begun(msgspec.json.encode(talk.messages), "", True)
        *messages, last = talk.messages
        if not messages or not isinstance(last["content"], str):
            return self._prompt(prompt), Begun(msgspec.json.encode(talk.messages), "", True)
        begun = Begun(msgspec.json.encode(messages), last["content"], self._continues is not None)
        sent = {"messages": talk.messages, **self._continues} if self._continues is not None else {"messages": messages}
        return sent, begun

    def _conversation(self, prompt: Prompt) -> Conversation:
        talk = conversation(prompt)
        unnamed = (each for each in talk.messages if each["role"] == "tool" and "tool_call_id" not in each)
        if not self.flavour.tool_role and any(unnamed):
            raise Unsupported(
                "this server takes a tool's message only as the answer to a call of its own interface for tools",
                help="append a result of rf.call_tools for calls of gen(tools=...), or write it as "
                "rf.user(result.content)",
            )
        return talk

    def _tools(self, prompt: Prompt, params: SamplingParams) -> dict[str, Any]:
        """The fields for tools: those that may be called, else those that the conversation has declared."""
        if params.constraint is not None and params.constraint.kind == "calls":
            return asking_for_calls(params.constraint, self.flavour.call_schema)
        if self._has_tools and prompt.message is not None and prompt.message.tools:
            return declaring(prompt.message.tools)
        return {}

    def _sampling(self, params: SamplingParams) -> dict[str, Any]:
        body = self.flavour.sampling(params)
        most = self.flavour.max_stops
        if most is not None and len(params.stop) > most:
            raise Unsupported(f"this server takes at most {most} stop strings, not {len(params.stop)}")
        tops = None if params.logprobs is None else max(params.logprobs, self.flavour.least_tops)
        if self.is_chat_model:
            body[self.flavour.max_tokens] = params.max_tokens
            if tops is not None:
                body |= {"logprobs": True} | ({"top_logprobs": tops} if tops else {})
        else:
            body["max_tokens"] = params.max_tokens
            if tops is not None:
                body["logprobs"] = tops
        if params.constraint is not None and params.constraint.kind != "calls":
            body |= dict(self.flavour.constraint(params.constraint, is_chat=self.is_chat_model))
        return body

    async def _ask(self, body: dict[str, Any], num_top: int | None, call: Call) -> Done:
        """Send one request and collect its answer, with so many top tokens. Raises Trouble."""
        if call.wants_deltas and "stream" in body:
            return await self._streamed(body, Collector(num_top), call.hand_on)
        done = await self._whole(body, num_top)
        if call.wants_deltas:
            call.hand_on(Delta(done.text, (), done.logprobs))
        return done

    async def _streamed(self, body: dict[str, Any], collector: Collector, hand_on: Callable[[Delta], None]) -> Done:
        async with self._asked(body) as response:
            async for data in server_sent(response.iter_bytes()):
                text, logprobs = collector.take(decode(data, Answer))
                if text or logprobs:
                    hand_on(Delta(text, (), logprobs))
        if collector.calls:
            hand_on(Delta(collector.calls))
        return collector.done()

    async def _choose(self, body: dict[str, Any], choices: Sequence[str], call: Call) -> Done:
        done = await self._whole(body)
        if done.text not in choices:
            raise Trouble(f"the server answered {done.text!r}, which is none of the choices: it ignores the constraint")
        return done

    async def _score(self, prompt: str, texts: Sequence[str], call: Call) -> Done:
        body = {**echo_fields(prompt, texts), **self.flavour.tokens_as_ids}
        return echoed_scores(await self._answer(body), prompt, texts)

    async def _whole(self, body: dict[str, Any], num_top: int | None = None) -> Done:
        collector = Collector(num_top)
        if "stream" in body:
            return await self._streamed(body, collector, lambda delta: None)
        collector.take(await self._answer(body))
        return collector.done()

    async def _answer(self, body: dict[str, Any]) -> Answer:
        """The whole answer to a request. Raises Trouble."""
        async with self._asked(body) as response:
            is_json = "json" in response.headers.get("content-type", "")
            return decode(await response.read(), Answer, is_json=is_json)

    @asynccontextmanager
    async def _asked(self, body: dict[str, Any]) -> AsyncIterator[AsyncAPIResponse[Any]]:
        """The response to a request, closed at the end. Raises Trouble for whatever the client raises."""
        try:
            response = await self._request(body)
            try:
                yield response
            finally:
                await response.close()
        except openai.APIStatusError as error:
            raise _status_trouble(error) from error
        except (openai.APIConnectionError, httpx2.TransportError) as error:
            raise Trouble.of_connection(error) from error

    async def _request(self, body: dict[str, Any]) -> AsyncAPIResponse[Any]:
        """The response, whose body is still to be read. What the API's own methods would look through goes as it is."""
        path = "/chat/completions" if "messages" in body else "/completions"
        content = msgspec.json.encode({"model": self.model, **body})
        options = cast(Any, {"headers": _HEADERS})
        response = await self._remote.client.post(path, cast_to=object, content=content, options=options)
        return cast("AsyncAPIResponse[Any]", response)


def _prompt_of(body: dict[str, Any]) -> bytes:
    """What a server's cache knows a request by: the tools, and then the prompt."""
    return msgspec.json.encode([body.get("tools"), body.get("messages") or body.get("prompt")])


def _is_plain(base_url: str | None) -> bool:
    """Whether a server is asked without TLS."""
    url = base_url or os.environ.get("OPENAI_BASE_URL") or ""
    return url.lower().startswith("http:")


def _choosing(scores: bool, constrained: bool) -> set[str]:
    """The features of choosing."""
    return {"select", "score"} if scores else {"select"} if constrained else set()


def _status_trouble(error: openai.APIStatusError) -> Trouble:
    message = error.body.get("message") if isinstance(error.body, dict) else None
    text = f"the server answered {error.status_code}: {message or error.message}"
    trouble = Trouble.of_status(error.status_code, text, error.response.headers)
    if error.code == "insufficient_quota":  # sent as 429, but waiting does not help
        trouble.passing = False
    return trouble


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else "..." + text[-57:])


def _flavour(name: str | None, client: AsyncOpenAI) -> Flavour:
    if name is None:
        return FLAVOURS["openai" if client.base_url.host.endswith("api.openai.com") else "compatible"]
    if name not in FLAVOURS:
        raise UsageError(f"unknown flavour {name!r}", help=f"known: {', '.join(FLAVOURS)}")
    return FLAVOURS[name]


def _connect(base_url: str | None, api_key: str | None, traffic: Traffic, timeout: float) -> AsyncOpenAI:
    if api_key is None and "OPENAI_API_KEY" not in os.environ and (base_url or os.environ.get("OPENAI_BASE_URL")):
        api_key = "none"  # most servers of one's own want no key, but the client does
    try:
        return openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(
                **connecting(traffic.max_connections, is_plain=_is_plain(base_url)), timeout=timeouts(timeout)
            ),
        )
    except openai.OpenAIError as error:
        raise UsageError(f"OpenAI's client: {error}", help="give api_key=..., or set OPENAI_API_KEY") from error
