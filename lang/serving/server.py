"""A server: it listens at once, and serves on a thread of its own (`start`) or on the caller's (`run`) until it ends.

with Server(backend, Settings(port=0)) as server:
    openai.OpenAI(base_url=server.url + "/v1", api_key="none")
"""

from __future__ import annotations

import socket
import threading
from types import FrameType
from typing import Any

try:
    import starlette  # noqa: F401 (app.py needs it)
    import uvicorn
except ImportError as error:
    raise ImportError(f"{error}; a server needs more packages: pip install 'ramify[serve]'") from error

from ...backends.local import LocalBackend
from ...ir.errors import UsageError
from .app import Service
from .settings import Settings

_BACKLOG = 2048


class Server:
    """Serves a model of this process. Raises UsageError where it cannot listen.

    When it is closed, or gets SIGINT or SIGTERM while it `run`s, it takes no more requests, finishes those that it has
    (for at most `drain_seconds`) and ends. The backend stays open.
    """

    def __init__(self, backend: LocalBackend, settings: Settings) -> None:
        if not isinstance(backend, LocalBackend):
            raise UsageError(f"a server needs a model of this process, not the backend {backend.name!r}")
        self.settings = settings
        self.service = Service(backend, settings)
        self._socket = _listening(settings.host, settings.port)
        self._address: tuple[str, int] = self._socket.getsockname()[:2]
        config = uvicorn.Config(
            self.service.app(),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            limit_concurrency=settings.max_connections,
            timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
            server_header=False,
        )
        self._server = _Uvicorn(config, self.service)
        self._thread: threading.Thread | None = None
        self._has_begun = False

    @property
    def url(self) -> str:
        """Where it is reached."""
        host, port = self._address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self) -> None:
        """Serve until a signal ends it. On the main thread."""
        self._has_begun = True
        self._server.run([self._socket])  # which closes the socket

    def start(self) -> None:
        """Serve on a thread of its own."""
        self._has_begun = True
        self._thread = threading.Thread(target=self.run, name="ramify-serve", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what runs, and end."""
        self.service.is_closing = True
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
        if not self._has_begun:
            self._socket.close()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Uvicorn(uvicorn.Server):
    """Refuses new requests from the moment on at which it is told to end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        self._service = service
        super().__init__(config)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come."""
        self._service.is_closing = True
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # else it would kill this process with the signal once it has ended


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UsageError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return _bound(*found[0])
    except OSError as error:
        raise UsageError(
            f"cannot listen at {host}, port {port}: {error.strerror or error}",
            help="choose another --port (0 is one that is free), or --host",
        ) from None


def _bound(family: int, kind: int, protocol: int, _: str, address: Any) -> socket.socket:
    """A socket at an address. It knows its protocol, without which asyncio would have small parts of answers wait."""
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made
