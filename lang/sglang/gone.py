"""Names of SGLang's that ramify has nothing for: they can be imported, and say what to use when they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from ...ir.errors import UsageError


def _gone(name: str, lack: str, help: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise UsageError(f"{name}: {lack}", help=help)

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = f"Raises UsageError: {lack}."
    return refuse


_SERVER = "there is no client for this server's own interface"
VertexAI = _gone(
    "VertexAI",
    _SERVER,
    "use its OpenAI-compatible one: "
    'rf.OpenAI(model, base_url="https://generativelanguage.googleapis.com/v1beta/openai/")',
)
LiteLLM = _gone("LiteLLM", _SERVER, "start LiteLLM's proxy, and use rf.OpenAI(model, base_url=...) with its address")
Crusoe = _gone("Crusoe", _SERVER, "use its OpenAI-compatible one: rf.OpenAI(model, base_url=...)")
ServerArgs = _gone("ServerArgs", "an engine takes its arguments by name", "pass them to rf.Engine(model_path=..., ...)")
