"""The places where programs run: `open_backend` finds one by name or directory and keeps it for the process."""

from __future__ import annotations

import atexit
import os
import threading
from functools import lru_cache
from pathlib import Path

from ..ir.errors import UsageError
from ..runtime.backend import Backend

_opened: dict[str, Backend] = {}
_opening = threading.RLock()
TINY = "tiny"
SCRIPTED = "scripted"


def open_backend(spec: str | Path | Backend) -> Backend:
    """The backend that `spec` names: "tiny" (the embedded model), a model directory, "scripted" or a backend itself.

    "scripted" needs no model, for tests of a program's flow; "scripted:0.5" takes half a second for each answer. One
    that was opened before is given again, so that all runs share its cache. Raises UsageError, ModelError.
    """
    if not isinstance(spec, str | Path):
        if not hasattr(spec, "generate"):
            raise UsageError(
                f"a backend is a name, a directory or a Backend, not {type(spec).__name__}: {spec!r}",
                help='use "tiny" (the embedded model), or the path of a model directory in Hugging Face layout',
            )
        return spec
    name, _, delay = str(spec).partition(":")
    if name == SCRIPTED:
        return _scripted(delay)
    directory = _directory(spec)
    with _opening:
        backend = _opened.get(str(directory))
        if backend is None:
            import torch

            from .local import LocalBackend

            # The embedded model is small enough to run in float32, where results do not depend on the batch.
            dtype = torch.float32 if directory == _directory(TINY) else None
            if not _opened:
                atexit.register(close_backends)  # an engine must not be in the middle of a step when Python ends
            backend = _opened[str(directory)] = LocalBackend(directory, dtype=dtype)
        return backend


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
        import torch

        _opened.clear()
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _directory(spec: str | Path) -> Path:
    if spec == TINY:
        return Path(__file__).resolve().parent / TINY / "weights"
    directory = Path(spec).expanduser()
    if directory.is_dir():
        return directory.resolve()
    raise UsageError(
        f"there is no backend {str(spec)!r}: it is neither a known name nor a directory",
        help='use "tiny" (the embedded model), "scripted" (no model), or a model directory in Hugging Face layout',
    )
