"""An SGLang server, through its native interface (`pip install ramify[openai]` for the HTTP client).

Where the files of the server's tokenizer lie on this machine too, prompts go out as token ids and generated tokens are
kept as they are, as in this process. Else the server gets text, and tokenizes all of it for each request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

try:
    import httpx2
except ImportError as error:
    raise ImportError(f"{error}; servers need more packages: pip install 'ramify[openai]'") from error

from ..ir.errors import ServerError, Unsupported, UsageError
from ..runtime.backend import Sink
from ..runtime.chat import NO_TEMPLATE, ChatFormat
from ..runtime.features import SAMPLING
from ..runtime.hostpool import host_pool
from ..runtime.prompt import Prompt
from ..runtime.prompt_tokens import KnownTokens, PromptTokens, Tokenization
from ..runtime.request import Done, SamplingParams
from ..runtime.tokens import Tokenizer
from .chats import chat_format
from .generated import Generated, Growing, ServedGrowing, TextGrowing, TokenGrowing
from .lanes import connecting
from .remote import Call, Remote, Retry, Traffic, Trouble, arrived, decode, nothing, server_sent, timeouts
from .scoring import first_judged, scored

T = TypeVar("T")
_RETRY = Retry()
# Texts longer than this many characters are tokenized on a host thread.
_LONG = 4_000
# Of requests that generate nothing.
_NOTHING = {"max_new_tokens": 0, "temperature": 0.0}
_SAMPLING_NAMES = {
    "max_tokens": "max_new_tokens",
    "min_tokens": "min_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": "repetition_penalty",
    "stop": "stop",
    "stop_token_ids": "stop_token_ids",
    "ignore_eos": "ignore_eos",
    "seed": "sampling_seed",
}


class ModelInfo(msgspec.Struct):
    """What is used of /model_info."""

    model_path: str
    tokenizer_path: str | None = None
    is_generation: bool = True


class ServerInfo(msgspec.Struct):
    """What is used of /server_info: whether seeds count, and whether a stream's pieces are only what is new.

    ramify: the version of ramify's own server (`ramify serve`), which can do what the engine can.
    """

    enable_deterministic_inference: bool = False
    incremental_streaming_output: bool = False
    stream_output: bool = False
    ramify: str | None = None


class RuntimeEndpoint:
    """An SGLang server at `url`, which is asked at once what it serves.

    tokenizer: the model directory whose tokenizer the server uses; None takes the server's own path if it is on this
    machine too. token_ids: False sends text all the same. chat_template: how messages are marked, where it is not in
    the tokenizer's directory. max_connections, retry, head_start: see Traffic. timeout: seconds for which the server
    may be silent. Raises ServerError when the server cannot be reached, UsageError, ModelError.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        tokenizer: str | Path | None = None,
        token_ids: bool = True,
        chat_template: str | Path | ChatFormat | None = None,
        max_connections: int = 64,
        timeout: float = 600.0,
        retry: Retry = _RETRY,
        head_start: float = 0.5,
    ) -> None:
        self.name = f"sglang:{url}"
        self.url = url.rstrip("/")
        self._headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._timeout = timeout
        self.model_info = self._get(ModelInfo, "/model_info", "/get_model_info")
        self._server_info = self._get(ServerInfo, "/server_info", "/get_server_info")
        if not self.model_info.is_generation:
            raise UsageError(f"the server at {url} serves {self.model_info.model_path!r}, which generates no text")
        directory = _tokenizer_directory(tokenizer, self.model_info)
        loaded = Tokenizer.load(directory) if directory is not None else None
        self.chat = _chat(chat_template, loaded, self.model_info, as_text=not token_ids)
        self._tokens = PromptTokens(loaded) if loaded is not None and token_ids else None
        self.features = SAMPLING | {"select", "score", "prompt_logprobs", "stop_regex", "regex", "json_schema", "dtype"}
        self._is_ramify = self._server_info.ramify is not None and self._tokens is not None
        self.reasons = {"seed": "the server would ignore it; start it with --enable-deterministic-inference"}
        if self._is_ramify:
            self.features = (self.features | {"grammar", "tools"}) - {"stop_regex"}
        if not self._server_info.enable_deterministic_inference:
            self.features -= {"seed"}
        traffic = Traffic(max_connections, retry, head_start=head_start)
        self._remote = Remote(self.name, partial(self._connect, traffic), traffic)

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Sink) -> Call:
        """See Backend. Raises Unsupported when messages are to be marked and nobody knows how."""
        if params.max_tokens == 0:
            return self._remote.send(nothing, sink, None)
        body = {"sampling_params": _sampling(params, is_ramify=self._is_ramify), **self._logprobs(params)}
        growing = self._growing(params)
        work = partial(self._generate, self._prompt(prompt), body, growing)
        return self._remote.send(work, sink, _text(prompt), params.max_tokens)

    def score(self, prompt: Prompt, texts: Sequence[str], sink: Sink, *, unconditional: bool = False) -> Call:
        """See Scorer. What is scored of a text are the tokens that differ from the prompt's own."""
        if unconditional and self._tokens is None:
            raise Unsupported(
                "scoring without the prompt needs the model's tokenizer here",
                help="give RuntimeEndpoint(..., tokenizer=DIRECTORY), or use another choice method",
            )
        work = partial(self._score, self._prompt(prompt), texts, unconditional)
        return self._remote.send(work, sink, _text(prompt))

    def clear_cache(self) -> None:
        """Drop the server's KV cache; it refuses while requests run. Blocks. Raises ServerError."""
        with self._blocking() as client:
            _checked(self, client.post("/flush_cache"))

    def server_info(self) -> dict[str, Any]:
        """Everything that the server tells of itself: its arguments and its state. Blocks. Raises ServerError."""
        return self._get(dict[str, Any], "/server_info", "/get_server_info")

    def close(self) -> None:
        """See Backend. The server goes on."""
        self._remote.close()

    def _connect(self, traffic: Traffic) -> _Client:
        return _Client(**connecting(traffic.max_connections, is_plain=self._is_plain), **self._options())

    @property
    def _is_plain(self) -> bool:
        """Whether certificates, which are slow to load, are not needed."""
        return self.url.lower().startswith("http:")

    def _blocking(self) -> httpx2.Client:
        return httpx2.Client(verify=not self._is_plain, **self._options())

    def _options(self) -> dict[str, Any]:
        """Of every client."""
        return {
            "base_url": self.url,
            "headers": self._headers,
            "timeout": timeouts(self._timeout),
        }

    def _get(self, kind: type[T], *paths: str) -> T:
        """What the first of the paths that the server knows answers. Raises ServerError."""
        try:
            with self._blocking() as client:
                answers = (client.get(path) for path in paths)
                answer = next((answer for answer in answers if answer.status_code != 404), None)
        except httpx2.TransportError as error:
            message = Trouble.of_connection(error).message
            raise ServerError(f"no SGLang server answers at {self.url}: {message}", help=_START) from error
        if answer is None:
            raise ServerError(f"the server at {self.url} is no SGLang server: it has no {paths[0]}", help=_START)
        try:
            return decode(_checked(self, answer).content, kind)
        except Trouble as trouble:
            raise ServerError(f"{self.name}: {trouble.message}") from trouble

    def _prompt(self, prompt: Prompt) -> str | Tokenization:
        """The prompt as text, or the tokenizing that is still to do."""
        if self._tokens is None:
            text = prompt.text_value()
            assert isinstance(text, str)
            return text
        return self._tokens.prepare(prompt)

    def _logprobs(self, params: SamplingParams) -> dict[str, Any]:
        if params.logprobs is None and params.logprob_start_len is None:
            return {}
        fields = {
            "return_logprob": True,
            "top_logprobs_num": params.logprobs or 0,
            "return_text_in_logprobs": params.return_text_in_logprobs,
        }
        if params.logprob_start_len is not None:  # the server's first entry has no log-probability
            fields["logprob_start_len"] = max(1, params.logprob_start_len) - 1
        return fields

    def _growing(self, params: SamplingParams) -> Callable[[], Growing]:
        info = self._server_info
        is_incremental = info.incremental_streaming_output or info.stream_output
        if self._is_ramify:
            return partial(ServedGrowing, params)
        if self._tokens is None:
            return partial(TextGrowing, params, is_incremental)
        return partial(TokenGrowing, self._tokens.tokenizer.decode_stream, params, is_incremental)

    async def _generate(
        self, prompt: str | Tokenization, body: dict[str, Any], new_growing: Callable[[], Growing], call: Call
    ) -> Done:
        """Send one request and collect its answer. Raises Trouble."""
        body |= {"text": prompt} if isinstance(prompt, str) else {"input_ids": (await _known(prompt)).token_ids}
        growing = new_growing()
        if not call.wants_deltas:
            growing.take(decode(await self._post(body), Generated))
            return growing.done()
        try:
            async with self._remote.client.stream("POST", "/generate", json=body | {"stream": True}) as response:
                await _check_status(response)
                async for data in server_sent(response.aiter_bytes()):
                    delta = growing.take(decode(data, Generated))
                    if delta is not None:
                        call.hand_on(delta)
        except httpx2.TransportError as error:
            raise Trouble.of_connection(error) from error
        return growing.done()

    async def _score(self, prompt: str | Tokenization, texts: Sequence[str], unconditional: bool, call: Call) -> Done:
        """Have all texts judged in one request. Raises Trouble, Unsupported, RequestError."""
        prompt_ids, wholes = await self._tokenized(prompt, texts)
        starts = [first_judged(prompt_ids, whole, text) for text, whole in zip(texts, wholes, strict=True)]
        judged = list(zip(wholes, starts, strict=True))
        if unconditional:
            judged += [self._alone(whole[start:]) for whole, start in judged]
        answers = await self._judge([each for each in judged if each[1] < len(each[0])])
        found = iter(answers)
        tokens = [next(found).judged(ids[start:]) if start < len(ids) else () for ids, start in judged]
        alone = tokens[len(texts) :] if unconditional else [None] * len(texts)
        return Done(
            "",
            (),
            "stop",
            scores=tuple(map(scored, texts, tokens, alone)),
            prompt_tokens=sum(answer.meta_info.prompt_tokens for answer in answers),
            cached_tokens=sum(answer.meta_info.cached_tokens for answer in answers),
        )

    async def _tokenized(self, prompt: str | Tokenization, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """The tokens of a prompt, and of the prompt with each text after it."""
        if not isinstance(prompt, str):
            known = await _known(prompt)
            return known.token_ids, [known.with_text(text) for text in texts]
        body = {"text": [prompt + text for text in ("", *texts)], "sampling_params": _NOTHING}
        data = await self._post(body | {"return_prompt_token_ids": True})
        answers = decode(data, list[Generated])
        for answer in answers:
            answer.check()
        ids = [answer.prompt_token_ids for answer in answers]
        first, *rest = [each for each in ids if each is not None] or [[]]
        if len(rest) != len(texts):
            raise Unsupported(
                "this server does not tell a prompt's tokens, and its tokenizer is not here: texts cannot be scored",
                help="give RuntimeEndpoint(..., tokenizer=DIRECTORY)",
            )
        return first, rest

    def _alone(self, token_ids: list[int]) -> tuple[list[int], int]:
        """Tokens after no more than the beginning-of-text token, and from where on they are judged."""
        assert self._tokens is not None
        return [*self._tokens.first_ids, *token_ids], 1

    async def _judge(self, judged: list[tuple[list[int], int]]) -> list[Generated]:
        """Have the tokens from a position on scored, for each of some prompts. Raises Trouble."""
        if not judged:
            return []
        body = {
            "input_ids": [token_ids for token_ids, _ in judged],
            "logprob_start_len": [start - 1 for _, start in judged],  # the entry at the start has no log-probability
            "return_logprob": True,
            "return_text_in_logprobs": True,
            "sampling_params": _NOTHING,
        }
        answers = decode(await self._post(body), list[Generated])
        if len(answers) != len(judged):
            raise Trouble(f"the server was asked to score {len(judged)} texts, and answered {len(answers)}")
        return answers

    async def _post(self, body: dict[str, Any]) -> bytes:
        """The server's answer to a request of /generate. Raises Trouble."""
        try:
            response = await self._remote.client.post("/generate", json=body)
        except httpx2.TransportError as error:
            raise Trouble.of_connection(error) from error
        await _check_status(response)
        return response.content


_START = (
    "start it with: python -m sglang.launch_server --model-path MODEL; or use OpenAI(..., base_url=...) for another"
)


def _text(prompt: Prompt) -> bytes:
    """What the server's cache knows a prompt by."""
    return str(prompt.text_value()).encode("utf-8", "replace")


class _Client(httpx2.AsyncClient):
    """A client whose end is called as a Remote calls it."""

    async def close(self) -> None:
        await self.aclose()


def _tokenizer_directory(given: str | Path | None, info: ModelInfo) -> Path | None:
    if given is not None:
        return Path(given).expanduser()
    for path in (info.tokenizer_path, info.model_path):
        if path and (Path(path) / "tokenizer.json").is_file():
            return Path(path)
    return None


def _chat(
    template: str | Path | ChatFormat | None, tokenizer: Tokenizer | None, info: ModelInfo, *, as_text: bool
) -> ChatFormat:
    """How messages are marked. as_text: in text that the server tokenizes, and puts its own first token before."""
    if template is not None:
        return chat_format(template)
    if tokenizer is None:
        return ChatFormat.refusing(
            f"how the model {info.model_path!r} marks messages is not known: its files are not on this machine",
            help="give RuntimeEndpoint(..., tokenizer=DIRECTORY) or chat_template=...",
        )
    return (tokenizer.chat_in_text if as_text else tokenizer.chat) or NO_TEMPLATE


def _sampling(params: SamplingParams, *, is_ramify: bool) -> dict[str, Any]:
    """The parameters by SGLang's names; all are sent, so that no default of the server's applies."""
    values = {theirs: getattr(params, ours) for ours, theirs in _SAMPLING_NAMES.items()}
    values |= {"top_k": params.top_k or -1, "stop": list(params.stop), "stop_token_ids": list(params.stop_token_ids)}
    values |= {"stop_regex": list(params.stop_regex)} if params.stop_regex else {}
    if params.constraint is not None:
        values[params.constraint.kind] = params.constraint.source
        if is_ramify:
            values["whitespace"] = params.constraint.has_space
    return values


async def _known(work: Tokenization) -> KnownTokens:
    if work.num_characters <= _LONG:
        return work.run()
    return await arrived(host_pool().submit(work.run))


def _message(content: bytes) -> str:
    """What a refusal says, however it is wrapped."""
    try:
        error = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return content.decode("utf-8", "replace")[:500].strip()
    while isinstance(error, dict):
        error = next((error[key] for key in ("error", "message", "detail") if key in error), None) or str(error)
    return str(error)


async def _check_status(response: httpx2.Response) -> None:
    if response.status_code != 200:
        message = _message(await response.aread())
        text = f"the server answered {response.status_code}: {message}"
        raise Trouble.of_status(response.status_code, text, response.headers)


def _checked(endpoint: RuntimeEndpoint, response: httpx2.Response) -> httpx2.Response:
    if response.status_code != 200:
        message = f"the server answered {response.status_code}: {_message(response.content)}"
        raise ServerError(f"{endpoint.name}: {message}", status=response.status_code)
    return response
