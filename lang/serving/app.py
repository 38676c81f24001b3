"""The server's paths, and what every request goes through: key, room, body, handler, error, count."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ... import __version__
from ...backends.local import LocalBackend
from ...runtime.request import Delta, Done
from .asking import Asking, Wanted
from .chats import Chat
from .completions import Completion
from .embeddings import Embeddings
from .errors import ApiError, Gone, not_understood, told
from .exchange import ClientDisconnect, Exchange
from .fields import Chatting, Completing, Embedding, NativeGenerating
from .metrics import CONTENT_TYPE, Metrics
from .native import NativeGeneration
from .programs import ProgramRun, Running, loaded, record_of
from .settings import Settings
from .usage import Counting

T = TypeVar("T")
_log = logging.getLogger(__name__)
# A body of more bytes than this is read off the event loop: tokenizing it would hold up everybody else.
_LONG_BODY = 8_000


class Answerable(Protocol):
    """A request for generations, and how it is answered."""

    wanted: list[Wanted]
    streams: bool
    counting: Counting

    def whole(self, dones: list[Done]) -> Any:
        """The answer."""

    def pieces(self, events: AsyncGenerator[tuple[int, Delta | Done]]) -> AsyncGenerator[dict[str, Any]]:
        """The answer as it grows."""


class Service:
    """What requests are served with. is_closing: whether new ones are refused, since the server ends."""

    def __init__(self, backend: LocalBackend, settings: Settings) -> None:
        self.backend = backend
        self.settings = settings
        self.model = settings.name or backend.name.removeprefix("local:")
        self.metrics = Metrics()
        self.is_closing = False
        self.started = int(time.time())
        self._keys = [key.encode() for key in settings.api_keys]

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            _route("/health", "GET", self, self.health, is_open=True),
            _route("/metrics", "GET", self, self.tell_metrics),
            _route("/v1/models", "GET", self, self.tell_models),
            _route("/v1/completions", "POST", self, self.complete, takes_room=True),
            _route("/v1/chat/completions", "POST", self, self.chat, takes_room=True),
            _route("/generate", "POST", self, self.generate, takes_room=True),
            *[_route(path, "GET", self, self.tell_model_info) for path in ("/model_info", "/get_model_info")],
            *[_route(path, "GET", self, self.tell_server_info) for path in ("/server_info", "/get_server_info")],
            _route("/flush_cache", "POST", self, self.flush_cache),
            _route("/v1/embeddings", "POST", self, self.embed, takes_room=True),
            _route("/v1/programs", "POST", self, self.run_program, takes_room=True),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _no_route})

    def check_key(self, exchange: Exchange) -> None:
        """Raises ApiError for a request without one of the keys, if there are any."""
        kind, _, given = exchange.request.headers.get("authorization", "").partition(" ")
        is_known = [hmac.compare_digest(given.strip().encode(), key) for key in self._keys]
        if self._keys and not (kind.lower() == "bearer" and any(is_known)):
            raise ApiError(
                401,
                "the request bears no key of this server: it goes into the header Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def check_room(self) -> None:
        """Raises ApiError where no more may be served now."""
        if self.is_closing:
            raise ApiError(503, "the server is about to end", code="closing", headers={"Retry-After": "5"})
        if self.metrics.num_active >= self.settings.max_requests:
            text = f"the server is serving {self.settings.max_requests} requests, as many as it takes; try again"
            raise ApiError(429, text, code="queue_full", headers={"Retry-After": "1"})

    def check_model(self, name: str | None) -> None:
        """Raises ApiError for a model that is not served."""
        if name is not None and name != self.model:
            text = f"the model {name!r} is not served here; the one that is: {self.model!r}"
            raise ApiError(404, text, param="model", code="model_not_found")

    async def health(self, exchange: Exchange) -> None:
        """Whether requests are served."""
        status = "closing" if self.is_closing else "ok"
        await exchange.answer({"status": status, "model": self.model}, 503 if self.is_closing else 200)

    async def tell_metrics(self, exchange: Exchange) -> None:
        """Metrics for Prometheus."""
        await exchange.send(self.metrics.text(self.backend.stats()).encode(), CONTENT_TYPE)

    async def tell_models(self, exchange: Exchange) -> None:
        """The one model."""
        length = self.backend.model.config.context_length
        model = {"id": self.model, "object": "model", "created": self.started, "owned_by": "ramify"}
        await exchange.answer({"object": "list", "data": [{**model, "max_model_len": length}]})

    async def complete(self, exchange: Exchange) -> None:
        """/v1/completions."""
        await self._generate(exchange, Completing, lambda fields: Completion(fields, self.backend, self.model))

    async def chat(self, exchange: Exchange) -> None:
        """/v1/chat/completions."""
        most = self.settings.max_tokens
        await self._generate(exchange, Chatting, lambda fields: Chat(fields, self.backend, self.model, most))

    async def generate(self, exchange: Exchange) -> None:
        """/generate."""
        await self._generate(exchange, NativeGenerating, lambda fields: NativeGeneration(fields, self.backend))

    async def tell_model_info(self, exchange: Exchange) -> None:
        """The model, as SGLang tells it."""
        directory = str(self.backend.directory)
        await exchange.answer({"model_path": directory, "tokenizer_path": directory, "is_generation": True})

    async def tell_server_info(self, exchange: Exchange) -> None:
        """The server, as SGLang tells it. ramify: whose server it is."""
        told = {"ramify": __version__, "enable_deterministic_inference": True, "incremental_streaming_output": False}
        await exchange.answer({**told, "served_model_name": self.model, **asdict(self.backend.stats())})

    async def flush_cache(self, exchange: Exchange) -> None:
        """Drop what is cached and not in use."""
        await asyncio.to_thread(self.backend.clear_cache)
        await exchange.send(b"Cache flushed.\n", "text/plain")

    async def embed(self, exchange: Exchange) -> None:
        """/v1/embeddings."""
        fields = decoded(exchange.body, Embedding)
        self.check_model(fields.model)
        try:
            asked = Embeddings(fields, self.backend, self.model)
            async with exchange.watched(asked.cancel):
                await exchange.answer(await asked.answer())
        except Gone:
            raise
        except Exception as error:
            raise told(error, Embedding.__struct_fields__) from error
        self.metrics.prompt_tokens += asked.prompt_tokens

    async def run_program(self, exchange: Exchange) -> None:
        """/v1/programs."""
        fields = decoded(exchange.body, Running)
        self.check_model(fields.model)
        try:
            compiled = await asyncio.to_thread(loaded, fields, self.settings)
            running = ProgramRun(compiled, fields, self.backend, self.settings.max_tokens)
            async with exchange.watched(running.cancel):
                if fields.stream:
                    await exchange.stream(running.events())
                else:
                    await exchange.answer(record_of(await running.ended()))
        except Gone:
            raise
        except Exception as error:
            raise told(error, Running.__struct_fields__) from error

    async def _generate(self, exchange: Exchange, kind: type[Any], make: Callable[[Any], Answerable]) -> None:
        fields, is_long = decoded(exchange.body, kind), len(exchange.body) > _LONG_BODY
        self.check_model(getattr(fields, "model", None))
        try:
            answer = await asyncio.to_thread(make, fields) if is_long else make(fields)
            asking = Asking(self.backend, answer.wanted, streams=answer.streams)
            async with exchange.watched(asking.cancel):
                if answer.streams:
                    await exchange.stream(answer.pieces(self._timed(asking)))
                else:
                    await exchange.answer(answer.whole(await asking.all()))
        except Gone:
            raise
        except Exception as error:
            raise told(error, kind.__struct_fields__) from error
        self.metrics.prompt_tokens += answer.counting.prompt_tokens
        self.metrics.cached_tokens += answer.counting.cached_tokens
        self.metrics.generated_tokens += answer.counting.generated_tokens

    async def _timed(self, asking: Asking) -> AsyncGenerator[tuple[int, Delta | Done]]:
        """The events; the time until the first is noted."""
        begun, is_first = time.perf_counter(), True
        async for each in asking.events():
            if is_first:
                self.metrics.first_seconds.add(time.perf_counter() - begun)
                is_first = False
            yield each


def decoded(body: bytes, kind: type[T]) -> T:
    """The fields of a body. Raises ApiError that names the one that is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise not_understood(error) from None
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply") from None


_Handler = Callable[[Exchange], Awaitable[None]]


def _route(
    path: str, method: str, service: Service, handler: _Handler, *, is_open: bool = False, takes_room: bool = False
) -> Route:
    return Route(path, _Endpoint(path, service, handler, is_open=is_open, takes_room=takes_room), methods=[method])


class _Endpoint:
    """A path as an ASGI application. is_open: whether no key is asked for. takes_room: whether it is generating."""

    def __init__(self, path: str, service: Service, handler: _Handler, *, is_open: bool, takes_room: bool) -> None:
        self._path = path
        self._service = service
        self._handler = handler
        self._is_open = is_open
        self._takes_room = takes_room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange, begun, metrics = Exchange(scope, receive, send), time.perf_counter(), self._service.metrics
        try:
            await self._serve(exchange)
        except (ClientDisconnect, Gone):
            metrics.num_disconnected += 1
        except Exception as raised:
            error = told(raised)
            if error.status >= 500:
                _log.error("a request to %s failed", self._path, exc_info=raised)
            await exchange.refuse(error)
        finally:
            metrics.count(self._path, exchange.status, time.perf_counter() - begun)

    async def _serve(self, exchange: Exchange) -> None:
        service = self._service
        if not self._is_open:
            service.check_key(exchange)
        if not self._takes_room:
            await self._handler(exchange)
            return
        await exchange.read(service.settings)  # first, since a body that does not come must hold up nobody
        service.check_room()
        service.metrics.num_active += 1
        try:
            await self._handler(exchange)
        finally:
            service.metrics.num_active -= 1


async def _no_route(request: Any, error: Exception) -> Any:
    """A path or a method that there is not."""
    from starlette.responses import JSONResponse

    assert isinstance(error, HTTPException)
    text = f"there is no {request.method} {request.url.path} here"
    return JSONResponse(ApiError(error.status_code, text).body(), error.status_code, headers=error.headers)
