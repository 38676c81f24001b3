"""What SGLang sets and asks for once for the whole process: the default backend, its cache, its state."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...ir.errors import Unsupported
from ..options import Options, default_backend, set_default_backend


class GlobalConfig:
    """SGLang's `global_config`. verbosity: 2 prints each run's text at its end.

    The other two are taken and do nothing: what runs share is always shared.
    """

    def __init__(self) -> None:
        self.verbosity = 0
        self.enable_precache_with_tracing = True
        self.enable_parallel_encoding = True

    @property
    def default_backend(self) -> Any:
        """What programs run on when nothing else is said."""
        return default_backend()

    @default_backend.setter
    def default_backend(self, backend: Any) -> None:
        set_default_backend(backend)


global_config = GlobalConfig()


def flush_cache(backend: Any = None) -> None:
    """Drop all KV of a backend (the default one) that nothing running uses. Raises Unsupported if it has none here."""
    _of(backend, "clear_cache", "has no cache that could be dropped from here")()


def get_server_info(backend: Any = None) -> dict[str, Any]:
    """What a backend (the default one) is doing and has done. Raises Unsupported if it does not say."""
    opened = Options(backend=backend).open_backend()
    info = getattr(opened, "server_info", None)
    if info is not None:
        found: dict[str, Any] = info()
        return found
    return {"name": opened.name, **asdict(_of(backend, "stats", "tells nothing of itself")())}


def _of(backend: Any, method: str, lack: str) -> Any:
    opened = Options(backend=backend).open_backend()
    found = getattr(opened, method, None)
    if found is None:
        raise Unsupported(f"the backend {opened.name!r} {lack}", help="a local model does: backend='/path/to/model'")
    return found
