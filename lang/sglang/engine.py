"""`Engine` and `Runtime`: a model in this process that answers single requests, without a program."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...backends import TINY, model_directory
from ...ir.errors import Unsupported, UsageError
from .requests import Requests, Text
from .server_args import backend_arguments
from .stream import iterate, iterate_async

_Params = Mapping[str, Any]
_INSTEAD = {
    "image_data": "show images in a program: rf.image(...)",
    "video_data": "show videos in a program: rf.video(...)",
}
_LOGPROBS = ("return_logprob", "logprob_start_len", "top_logprobs_num")


class Engine:
    """A model directory (or "tiny", the embedded model) ready to generate. `endpoint` is its backend, for programs.

    Server arguments are SGLang's; one that cannot be honoured is refused. random_seed: makes the requests' draws
    repeatable, in the order in which they are made. Raises UsageError, ModelError.
    """

    def __init__(self, model_path: str | Path, *, random_seed: int | None = None, **server_args: Any) -> None:
        import torch

        from ...backends.local import LocalBackend

        arguments = backend_arguments(server_args)
        if model_path == TINY:
            arguments.setdefault("dtype", torch.float32)
        self.model_path = str(model_path)
        self.server_args = server_args
        self.endpoint = LocalBackend(model_directory(model_path), **arguments)
        self._seeds = None if random_seed is None else itertools.count(random_seed)

    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        sampling_params: _Params | Sequence[_Params] | None = None,
        input_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        *,
        return_logprob: bool | Sequence[bool] = False,
        logprob_start_len: int | Sequence[int] | None = None,
        top_logprobs_num: int | Sequence[int] | None = None,
        stream: bool = False,
        **others: Any,
    ) -> Any:
        """Generate after a prompt or a list of them, given as texts or token ids; a dict, or a list of them in order.

        sampling_params: one dict for all prompts or one for each; `n` gives n results for each prompt. stream: an
        iterator of dicts with all the text so far, and the number of the request as "index". Raises UsageError for what
        cannot be done, and what a request failed with.
        """
        _refuse(others)
        logprobs = (return_logprob, logprob_start_len, top_logprobs_num)
        prompts, params = self._lists(prompt, input_ids, sampling_params, logprobs)
        requests = Requests(self.endpoint, prompts, params)
        if stream:
            return _abandoned(requests, iterate(requests.stream, requests.chunks()))
        results = list(_abandoned(requests, iterate(requests.stream, requests.results())))
        return results if len(results) != 1 or _is_list(prompt, input_ids) else results[0]

    async def async_generate(
        self,
        prompt: str | Sequence[str] | None = None,
        sampling_params: _Params | Sequence[_Params] | None = None,
        input_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        *,
        return_logprob: bool | Sequence[bool] = False,
        logprob_start_len: int | Sequence[int] | None = None,
        top_logprobs_num: int | Sequence[int] | None = None,
        stream: bool = False,
        **others: Any,
    ) -> Any:
        """`generate` for asyncio; awaited with stream=True, it gives an async iterator."""
        _refuse(others)
        logprobs = (return_logprob, logprob_start_len, top_logprobs_num)
        prompts, params = self._lists(prompt, input_ids, sampling_params, logprobs)
        requests = Requests(self.endpoint, prompts, params)
        if stream:
            return _abandoned_async(requests, iterate_async(requests.stream, requests.chunks()))
        items = _abandoned_async(requests, iterate_async(requests.stream, requests.results()))
        results = [item async for item in items]
        return results if len(results) != 1 or _is_list(prompt, input_ids) else results[0]

    def get_tokenizer(self) -> Any:
        """The model's tokenizer as `transformers` has it (`pip install ramify[hf]`)."""
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise UsageError(
                "get_tokenizer() gives a tokenizer of transformers, which is not installed",
                help="pip install 'ramify[hf]', or use `engine.endpoint.tokenizer`",
            ) from error
        return AutoTokenizer.from_pretrained(model_directory(self.model_path))

    def cache_prefix(self, prefix: str) -> None:
        """Compute a text's KV now, so that prompts that begin with it find it."""
        self.generate(prefix, {"max_new_tokens": 1})

    def flush_cache(self) -> None:
        """Drop all KV that nothing running uses."""
        self.endpoint.clear_cache()

    def get_server_info(self) -> dict[str, Any]:
        """The engine's arguments, and what it is doing and has done."""
        return {"model_path": self.model_path, **self.server_args, **asdict(self.endpoint.stats())}

    def get_model_info(self) -> dict[str, Any]:
        """The model's directory."""
        return {"model_path": self.model_path, "is_generation": True}

    def encode(self, *_: Any, **__: Any) -> Any:
        """Raises Unsupported: the engine generates, it gives no embeddings."""
        raise Unsupported(
            "the engine generates text and gives no embeddings", help="use an embedding model's own library"
        )

    def shutdown(self) -> None:
        """Stop, and release the model and its KV. Requests in flight fail."""
        self.endpoint.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def _lists(
        self,
        prompt: str | Sequence[str] | None,
        input_ids: Sequence[int] | Sequence[Sequence[int]] | None,
        sampling_params: _Params | Sequence[_Params] | None,
        logprobs: tuple[Any, Any, Any],
    ) -> tuple[list[Text], list[_Params]]:
        """The prompts, and each one's sampling parameters."""
        if (prompt is None) == (input_ids is None):
            raise UsageError("generate() takes a prompt or input_ids, one of the two")
        given: Any = prompt if prompt is not None else input_ids
        prompts = list(given) if _is_list(prompt, input_ids) else [given]
        columns = {"sampling_params": {} if sampling_params is None else sampling_params}
        columns |= dict(zip(_LOGPROBS, logprobs, strict=True))
        rows = zip(*(_column(name, value, len(prompts)) for name, value in columns.items()), strict=True)
        return prompts, [self._params(*row) for row in rows]

    def _params(self, given: _Params, *logprobs: Any) -> _Params:
        """One prompt's sampling parameters, the log-probabilities that are wanted among them."""
        params = dict(given)
        if logprobs[0]:
            params |= zip(_LOGPROBS, logprobs, strict=True)
        if self._seeds is not None:
            params.setdefault("sampling_seed", next(self._seeds))
        return params


class Runtime:
    """SGLang's server in a process of its own; here the engine in this one. It is a backend for programs.

    `generate` gives JSON, as there; `async_generate` yields pieces of text.
    """

    def __init__(self, model_path: str | Path, *, launch_timeout: float = 300.0, **server_args: Any) -> None:
        self.engine = Engine(model_path, **server_args)
        self.endpoint = self.engine.endpoint

    def generate(
        self,
        prompt: str | Sequence[str],
        sampling_params: _Params | None = None,
        return_logprob: bool | Sequence[bool] = False,
        logprob_start_len: int | Sequence[int] | None = None,
        top_logprobs_num: int | Sequence[int] | None = None,
        **others: Any,
    ) -> str:
        """See Engine; as JSON."""
        wanted = (return_logprob, logprob_start_len, top_logprobs_num)
        logprobs: dict[str, Any] = dict(zip(_LOGPROBS, wanted, strict=True))
        return json.dumps(self.engine.generate(prompt, sampling_params, **logprobs, **others))

    async def async_generate(
        self, prompt: str, sampling_params: _Params | None = None, **others: Any
    ) -> AsyncIterator[str]:
        """The text in pieces."""
        num_characters = 0
        async for chunk in await self.engine.async_generate(prompt, sampling_params, stream=True, **others):
            if piece := chunk["text"][num_characters:]:
                num_characters += len(piece)
                yield piece

    add_request = async_generate

    def get_tokenizer(self) -> Any:
        """See Engine."""
        return self.engine.get_tokenizer()

    def cache_prefix(self, prefix: str) -> None:
        """See Engine."""
        self.engine.cache_prefix(prefix)

    def encode(self, *_: Any, **__: Any) -> Any:
        """See Engine."""
        return self.engine.encode()

    async def get_server_info(self) -> dict[str, Any]:
        """See Engine."""
        return self.engine.get_server_info()

    def shutdown(self) -> None:
        """See Engine."""
        self.engine.shutdown()


def _is_list(prompt: Any, input_ids: Any) -> bool:
    """Whether a list of prompts was given, not one."""
    if prompt is not None:
        return not isinstance(prompt, str)
    return bool(len(input_ids)) and not isinstance(input_ids[0], int)


def _column(name: str, value: Any, length: int) -> list[Any]:
    """One value for each prompt."""
    if not isinstance(value, list | tuple):
        return [value] * length
    if len(value) != length:
        raise UsageError(f"{name} has {len(value)} entries for {length} prompts")
    return list(value)


def _refuse(others: Mapping[str, Any]) -> None:
    """Raises UsageError for arguments that would change the result; those that ask for nothing are let through."""
    asked = {name: value for name, value in others.items() if value is not None and value is not False and value != -1}
    asked.pop("rid", None)
    for name in asked:
        raise UsageError(f"generate() takes no {name!r} here", help=_INSTEAD.get(name, "leave it out"))


def _abandoned(requests: Requests, items: Iterator[Any]) -> Iterator[Any]:
    """The items; whoever stops before the last gives the requests up."""
    try:
        yield from items
    finally:
        requests.cancel()


async def _abandoned_async(requests: Requests, items: AsyncIterator[Any]) -> AsyncIterator[Any]:
    try:
        async for item in items:
            yield item
    finally:
        requests.cancel()
