"""The places where programs run: `open_backend` finds one by name or directory and keeps it for the process."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ..ir.errors import UsageError
from ..runtime.backend import Backend
from ..runtime.weight_format import WeightFormat, check_format
from .hub import hub_directory, is_hub_name, name_of, snapshot_in

_opened: dict[str, Backend] = {}
_opening = threading.RLock()
TINY = "tiny"
SCRIPTED = "scripted"
OPENAI = "openai"
ANTHROPIC = "anthropic"
# The kinds of servers that are named before the model (flavours.py).
_SERVED = (OPENAI, "compatible", "vllm", "sglang", "llama.cpp", "llama-cpp-python", "ramify")


def open_backend(spec: str | Path | Backend) -> Backend:
    """The backend that `spec` names, or a backend itself.

    "tiny" is the embedded model; a path is a model directory; "OWNER/NAME" is a model of the Hugging Face Hub; each
    with ":int8" or ":fp8" behind it has its weights rounded, which is approximate (docs/runtime.md); "openai:MODEL" or
    "openai:MODEL@BASE_URL" is a model behind an OpenAI-compatible server, "vllm:MODEL", "sglang:MODEL",
    "llama.cpp:MODEL" ... one behind a server of this kind; "anthropic:MODEL" is one of Anthropic's;
    "http://..." is an SGLang server. "scripted" needs no model, for tests of a program's flow; "scripted:0.5" takes
    half a second for each answer. One that was opened before is given again, so that all runs share its cache. Raises
    UsageError, ModelError, BackendError.
    """
    if not isinstance(spec, str | Path):
        if not hasattr(spec, "generate"):
            raise UsageError(
                f"a backend is a name, a directory or a Backend, not {type(spec).__name__}: {spec!r}", help=_WAYS
            )
        return spec
    name, _, rest = str(spec).partition(":")
    if name == SCRIPTED:
        return _scripted(rest)
    if name in _SERVED and rest:
        return _kept(str(spec), partial(_served, name, rest))
    if name == ANTHROPIC and rest:
        return _kept(str(spec), partial(_anthropic, rest))
    if name in ("http", "https"):
        return _kept(str(spec), partial(_endpoint, str(spec)))
    directory, weights = split_model(spec)
    return _kept(f"{directory}:{weights}", partial(_local, directory, weights))


def open_local(
    spec: str | Path,
    *,
    kv_tokens: int | None = None,
    host_kv_tokens: int = 0,
    adapters: Mapping[str, str | Path] | None = None,
) -> Backend:
    """A model of this process that is opened with room for so many tokens of KV, on the device and in host memory, and
    with adapters.

    `open_backend` gives it from then on. Raises UsageError for what is no such model, or one that is open already, and
    what LocalBackend raises.
    """
    if str(spec).partition(":")[0] in (SCRIPTED, ANTHROPIC, *_SERVED, "http", "https"):
        raise UsageError(f"the model {spec} keeps no KV here", help="only a model in this process does")
    directory, weights = split_model(spec)
    key = f"{directory}:{weights}"
    with _opening:
        if key in _opened:
            raise UsageError(f"the model {spec} is open already: its room for KV and its adapters stay what they are")
        given = {"kv_tokens": kv_tokens, "host_kv_tokens": host_kv_tokens, "adapters": adapters}
        return _kept(key, partial(_local, directory, weights, **given))


_WAYS = (
    'use "tiny" (the embedded model), the path of a model directory in Hugging Face layout, "OWNER/NAME" of the '
    'Hugging Face Hub, each with ":int8" behind it for rounded weights, "openai:MODEL", "anthropic:MODEL", '
    'the "http://..." address of an SGLang server, or "scripted" (no model)'
)


def _kept(key: str, make: Callable[[], Backend]) -> Backend:
    """The backend that was made under this key, made now if there is none."""
    with _opening:
        backend = _opened.get(key)
        if backend is None:
            backend = make()
            if not _opened:
                atexit.register(close_backends)  # an engine must not be in the middle of a step when Python ends
            _opened[key] = backend
        return backend


def _local(directory: Path, weights: WeightFormat | None, **given: Any) -> Backend:
    import torch

    from .local import LocalBackend

    # The embedded model is small enough to run in float32, where results do not depend on the batch.
    dtype = torch.float32 if directory == model_directory(TINY) else None
    return LocalBackend(directory, dtype=dtype, weights=weights, **given)


def _served(kind: str, model: str, **options: Any) -> Backend:
    from .openai import OpenAI

    model, at, url = model.partition("@http")
    flavour = None if kind == OPENAI else kind
    return OpenAI(model, base_url=f"http{url}" if at else None, flavour=flavour, **options)


def _anthropic(model: str, **options: Any) -> Backend:
    from .anthropic import Anthropic

    return Anthropic(model, **options)


def describe_backend(spec: str) -> Backend:
    """A backend that is asked what it can do and nothing else: one behind a server needs no key. Raises UsageError."""
    kind, _, model = spec.partition(":")
    if kind not in (*_SERVED, ANTHROPIC):
        return open_backend(spec)
    if not model:
        raise UsageError(f"{spec!r} names no model", help=f'name one: "{kind}:MODEL"')
    if kind == ANTHROPIC:
        return _anthropic(model, api_key="none")
    return _served(kind, model, api_key="none")


def _endpoint(url: str) -> Backend:
    from .endpoint import RuntimeEndpoint

    return RuntimeEndpoint(url)


@lru_cache
def _scripted(delay: str) -> Backend:
    from .scripted import ScriptedBackend

    try:
        return ScriptedBackend(delay=float(delay or 0))
    except ValueError:
        raise UsageError(f"the model 'scripted:{delay}' has no delay in seconds after the colon") from None


def close_backends() -> None:
    """Close every backend that `open_backend` keeps."""
    with _opening:
        for backend in _opened.values():
            backend.close()
        _opened.clear()


def _forget() -> None:
    """A forked child has the engines' memory but not their threads; it opens its own.

    OpenMP's threads are gone too, and torch would wait for them forever, so it computes on one thread there.
    """
    global _opening
    _opening = threading.RLock()
    if _opened:
        _opened.clear()
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def model_directory(spec: str | Path) -> Path:
    """The directory of a model: the embedded one's by its name, one of the Hub's once it is here.

    Raises UsageError, and ModelError for what cannot be had from the Hub.
    """
    if spec == TINY:
        return Path(__file__).resolve().parent / TINY / "weights"
    directory = Path(spec).expanduser()
    if directory.is_dir():
        return snapshot_in(directory.resolve())
    if is_hub_name(str(spec)):
        return hub_directory(str(spec))
    raise UsageError(f"there is no backend {str(spec)!r}: it is neither a known name nor a directory", help=_WAYS)


def split_model(spec: str | Path) -> tuple[Path, WeightFormat | None]:
    """A model's directory, and what its weights are rounded to: that stands behind a colon. Raises UsageError."""
    name, _, weights = str(spec).rpartition(":")
    is_model = name == TINY or is_hub_name(name) or Path(name).expanduser().is_dir()
    if not name or Path(spec).expanduser().is_dir() or not is_model:
        return model_directory(spec), None
    check_format(weights)
    return model_directory(name), weights  # type: ignore[return-value]


def directory_name(directory: Path, weights: WeightFormat | None) -> str:
    """What a backend on a model directory is called."""
    name = TINY if directory == model_directory(TINY) else name_of(directory)
    return f"local:{name} ({weights} weights, approximate)" if weights else f"local:{name}"
