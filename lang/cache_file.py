"""`--cache FILE` and `:cache`: a local model's computed prefixes, loaded from a file and saved to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..ir.errors import UsageError
from ..runtime.backend import Backend

if TYPE_CHECKING:
    from ..backends.local import LocalBackend


def with_cache(backend: Backend) -> LocalBackend:
    """The backend as one that has a cache. Raises UsageError for one that has none."""
    if not hasattr(backend, "save_cache"):
        raise UsageError(f"the model {backend.name} has no cache here", help="only a model in this process has one")
    return backend  # type: ignore[return-value]


@contextmanager
def kept_in(file: str, backend: Backend, max_tokens: int | None = None) -> Iterator[None]:
    """Load the cache before, if the file is there, and save it after, however that ends, if anything is new in it.

    max_tokens: save those used last, at most so many. Raises UsageError before anything runs, CacheError.
    """
    local, path = with_cache(backend), Path(file).expanduser()
    if max_tokens is not None and max_tokens < 1:
        raise UsageError(f"--cache-tokens must be at least 1, got {max_tokens}")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} for the cache {path.name}")
    loaded = local.load_cache(path) if path.exists() else None
    before = local.stats()
    try:
        yield
    finally:
        after = local.stats()
        if loaded is None or (after.cached, after.evicted_tokens) != (before.cached, before.evicted_tokens):
            local.save_cache(path, max_tokens=max_tokens)
