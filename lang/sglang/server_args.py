"""SGLang's server arguments as those of the local backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...ir.errors import UsageError

_RENAMED = {
    "max_running_requests": "max_running",
    "max_total_tokens": "kv_tokens",
    "chunked_prefill_size": "chunk_tokens",
    "device": "device",
    # SGLang's "fp8" rounds activations too; here they stay as they are, so results are nearer to the exact ones.
    "quantization": "weights",
}
_DTYPES = {
    "half": "float16",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float": "float32",
    "float32": "float32",
}
_ONE = ("tp_size", "dp_size", "pp_size", "nnodes")
# How a server is reached, watched and warmed up, and which kernels it takes: there is none of it, or it chooses itself.
_WITHOUT_EFFECT = (
    *("attention_backend", "disable_cuda_graph", "enable_metrics", "host", "log_level", "log_requests", "port"),
    *("mem_fraction_static", "sampling_backend", "show_time_cost", "skip_server_warmup", "trust_remote_code"),
    "watchdog_timeout",
)
KNOWN = (
    *("model_path", "dtype", "disable_radix_cache", "random_seed", "speculative_algorithm"),
    *(*_RENAMED, *_ONE, *_WITHOUT_EFFECT),
)


def backend_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of LocalBackend for server arguments. Raises UsageError for those that cannot be honoured."""
    arguments: dict[str, Any] = {}
    for name, value in given.items():
        if name in _RENAMED:
            arguments[_RENAMED[name]] = value
        elif name == "dtype":
            arguments["dtype"] = _dtype(value)
        elif name == "disable_radix_cache":
            arguments["prefix_cache"] = not value
        elif name == "speculative_algorithm":
            arguments["lookup"] = _speculates(value)
        elif name in _ONE and value != 1:
            raise UsageError(f"{name}={value!r}: an engine runs in this process, on one device", help=f"{name}=1")
        elif name not in _ONE and name not in _WITHOUT_EFFECT:
            raise UsageError(f"there is no server argument {name!r} here", help=f"known are {', '.join(KNOWN)}")
    return {name: value for name, value in arguments.items() if value is not None}


def _speculates(algorithm: Any) -> bool | None:
    if algorithm not in (None, "NGRAM"):
        raise UsageError(f"speculative_algorithm is NGRAM, not {algorithm!r}: there are no draft models here")
    return None if algorithm is None else True


def _dtype(name: Any) -> Any:
    if name in (None, "auto"):
        return None
    if name not in _DTYPES:
        raise UsageError(f"dtype is one of auto, {', '.join(_DTYPES)}, not {name!r}")
    import torch

    return getattr(torch, _DTYPES[name])
