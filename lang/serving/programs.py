"""/v1/programs: a saved program (`compile().save`, `ramify compile -o`) is run here, beside the KV cache.

A program that holds Python runs only if it is signed: the signature is the HMAC-SHA256 of the file's bytes with one of
the server's keys. One that holds none is ops of the IR alone, and bounded (bounds.py). It may do no more than ask the
model: neither read files nor call what a value is or has.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from functools import lru_cache
from typing import Any

import msgspec

from ...backends.local import LocalBackend
from ...ir.core import Module
from ...ir.errors import IRError, RamifyError, UntrustedCode
from ...runtime.generation import StreamEvent
from ...runtime.loop import loop
from ..compiled import Compiled
from ..execution import Execution
from ..plain import plain
from ..program import of_compiled
from ..records import run_record
from ..run import Run
from .bounds import check_bounded
from .errors import ApiError, Gone, in_words, invalid
from .settings import Settings

# Of an unsigned one, whose text is parsed before it is known to be harmless.
MOST_UNSIGNED_BYTES = 256 << 10
_FILES = ("prompt.image", "prompt.video")


class Running(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body. module: the saved program in base64. sampling: what the program's gens do not say, by name."""

    module: str
    arguments: dict[str, Any] = {}
    signature: str | None = None
    sampling: dict[str, Any] = {}
    timeout: float | None = None
    stream: bool = False
    model: str | None = None


def signature_of(data: bytes, key: str) -> str:
    """What a server that has the key takes as a signature of a saved program: hexadecimal."""
    return hmac.new(key.encode(), data, hashlib.sha256).hexdigest()


def loaded(fields: Running, settings: Settings) -> Compiled:
    """The program that is to run. May take long. Raises ApiError for one that may not, or that is none."""
    try:
        data = base64.b64decode(fields.module, validate=True)
    except binascii.Error as error:
        raise invalid(f"module is not base64: {error}", "module") from None
    is_trusted = fields.signature is not None
    if fields.signature is not None and not _is_signed(data, fields.signature, settings.program_keys):
        raise ApiError(403, "the signature is of no key of this server", param="signature", code="invalid_signature")
    if not is_trusted and len(data) > MOST_UNSIGNED_BYTES:
        raise invalid(f"an unsigned program has at most {MOST_UNSIGNED_BYTES:,} bytes", "module")
    try:
        compiled = _loaded(data, is_trusted=is_trusted)
    except UntrustedCode as error:
        text = f"{error.message}; it runs here if it is signed with a key of the server (--program-key)"
        raise ApiError(403, text, param="module", code="unsigned_code") from None
    except (IRError, ValueError, RecursionError, KeyError) as error:
        raise invalid(f"module is no saved program: {in_words(error)}", "module") from None
    if not is_trusted:
        _check_harmless(compiled.module)
        check_bounded(compiled.module, fields.arguments, settings.max_tokens)
    return compiled


def _is_signed(data: bytes, signature: str, keys: Iterable[str]) -> bool:
    given = signature.strip().lower().encode()
    return any([hmac.compare_digest(given, signature_of(data, key).encode()) for key in keys])


@lru_cache(maxsize=16)
def _loaded(data: bytes, *, is_trusted: bool) -> Compiled:
    return Compiled.loads(data, "the module", trust=is_trusted)


def _check_harmless(module: Module) -> None:
    """Raises ApiError for a program that might have the server read files, or match patterns of Python's for ever."""
    for op in module.walk():
        given = {**op.attrs.get("params", {}), **dict.fromkeys(op.attrs.get("dynamic", ()))}
        if op.name in _FILES or ("grammar" in given and not _is_text(given["grammar"])):
            raise _refused(f"read files, as this one might ({op.name}): sign it, or write the grammar into it as text")
        if "stop_regex" in given or op.name == "lm.call":
            raise _refused(f"have stop_regex or arguments that are checked late ({op.name}): sign it")


def _refused(what: str) -> ApiError:
    return ApiError(403, f"an unsigned program may not {what}", param="module", code="unsigned_code")


def _is_text(grammar: Any) -> bool:
    return isinstance(grammar, str) and not grammar.endswith(".lark")


class ProgramRun:
    """A run of a program that a client has sent. On the event loop that its events come to. Raises UsageError, and
    RequestError for sampling parameters that are none."""

    def __init__(self, compiled: Compiled, fields: Running, backend: LocalBackend, max_tokens: int) -> None:
        sampling = {"max_tokens": max_tokens, **_checked(fields.sampling)}
        program = of_compiled(compiled).options(backend=backend, timeout=fields.timeout, **sampling)
        arguments = program.signature.bind((), fields.arguments)
        self._home = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._events: deque[StreamEvent] = deque()
        self._is_cancelled = False
        emit = self._put if fields.stream else None
        self._execution: Execution = program.execution(arguments, program.run_options, emit)
        self._execution.ended.add_callback(lambda _: self._wake())
        loop().soon(self._execution.start)

    def _put(self, event: StreamEvent) -> None:
        """On ramify's loop, or a host thread."""
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        try:
            self._home.call_soon_threadsafe(self._ready.set)
        except RuntimeError:  # the server is gone
            self._execution.cancel()

    def cancel(self) -> None:
        """Nobody wants the rest."""
        self._is_cancelled = True
        self._execution.cancel()

    async def ended(self) -> Run:
        """The run, once it has ended; with its error, if it has one. Raises Gone if it was cancelled."""
        try:
            while not self._execution.ended.done:
                await self._ready.wait()
                self._ready.clear()
        except BaseException:
            self.cancel()
            raise
        if self._is_cancelled:
            raise Gone
        return self._execution.ended.result()

    async def events(self) -> AsyncGenerator[dict[str, Any]]:
        """What becomes part of the program's prompts, and at last the run."""
        try:
            while not self._execution.ended.done or self._events:
                while self._events:
                    yield {"event": _told(self._events.popleft())}
                if not self._execution.ended.done:
                    await self._ready.wait()
                    self._ready.clear()
        except BaseException:
            self.cancel()
            raise
        yield {"run": record_of(await self.ended())}


def _checked(sampling: dict[str, Any]) -> dict[str, Any]:
    """The sampling parameters. Raises ApiError for those that are not taken."""
    for name in ("processors", "stop_regex"):
        if name in sampling:
            raise invalid(f"sampling.{name} is for programs that say it themselves", "sampling")
    return sampling


def _told(event: StreamEvent) -> dict[str, Any]:
    return {
        "branch": event.branch,
        "name": event.name,
        "text": event.text,
        "kind": event.kind,
        "written": event.written,
        "sample": event.sample,
    }


def record_of(run: Run) -> dict[str, Any]:
    """What is told of a run: as `ramify run --json`, but of an error no lines of this server's files."""
    record: dict[str, Any] = plain(run_record(run))
    if run.error is not None:
        message = in_words(run.error) if isinstance(run.error, RamifyError) else str(run.error)
        record["error"] = {"type": type(run.error).__name__, "message": message, "traceback": ""}
    return record
