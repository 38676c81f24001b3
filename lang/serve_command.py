"""`ramify serve`: a server over a model of this process."""

from __future__ import annotations

import argparse
import ipaddress
import sys
from dataclasses import fields
from pathlib import Path

from ..backends import open_backend, open_local
from ..backends.local import LocalBackend
from ..ir.errors import UsageError
from .options import default_backend
from .serving.keys import key_of
from .serving.settings import Settings


def serve_command(given: argparse.Namespace) -> int:
    """Serve until a signal comes. Returns the exit code."""
    from .serving.server import Server

    server = Server(_backend(given), settings(given))
    service = server.service
    if not service.settings.api_keys and not _is_local(service.settings.host):
        print("warning: whoever reaches this server may use it; --api-key asks for a key", file=sys.stderr)
    print(f"serving {service.model} at {server.url}/v1", file=sys.stderr, flush=True)
    server.run()
    return 0


def settings(given: argparse.Namespace) -> Settings:
    """What the command line says of the server. Raises UsageError."""
    names = [field.name for field in fields(Settings)]
    said = {name: value for name in names if (value := getattr(given, name, None)) is not None}
    keys = {name: tuple(map(key_of, said.get(name, ()))) for name in ("api_keys", "program_keys")}
    return Settings(**{**said, **keys})


def _backend(given: argparse.Namespace) -> LocalBackend:
    model = default_backend() if given.model is None else given.model
    if given.kv_tokens is None and given.host_kv_tokens is None:
        backend = open_backend(model)
    else:
        assert isinstance(model, str | Path)
        backend = open_local(model, kv_tokens=given.kv_tokens, host_kv_tokens=given.host_kv_tokens or 0)
    if not isinstance(backend, LocalBackend):
        raise UsageError(f"a server needs a model of this process, not {backend.name!r}", help="give --model DIR")
    return backend


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
