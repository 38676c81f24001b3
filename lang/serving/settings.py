"""What a server is started with."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ...ir.errors import UsageError


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server serves.

    host, port: where it listens; port 0 is one that is free. name: what the model is called; None is the backend's own
    name. api_keys: one of which a request has to bear; none is asked for where there are none. program_keys: those with
    which programs that hold Python may be signed. max_requests: how many are served at a time, the engine's queue
    included; what is beyond is answered with 429. max_connections: how many clients may be connected. max_body: bytes
    of a request's body. body_seconds: how long that may take to arrive. max_tokens: how many a chat answer or a
    program's gen may have that does not say it. drain_seconds: how long a server that is ended waits for what runs.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    api_keys: tuple[str, ...] = ()
    program_keys: tuple[str, ...] = ()
    max_requests: int = 1024
    max_connections: int = 4096
    max_body: int = 16 << 20
    body_seconds: float = 60.0
    max_tokens: int = 2048
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and value <= 0 and (value, field.name) != (0, "port"):
                raise UsageError(f"{field.name} must be above 0, got {value}")
        if not all(self.api_keys) or not all(self.program_keys):
            raise UsageError("a key is empty", help="leave it out, or give a long random text")
