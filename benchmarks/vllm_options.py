"""How the benchmarks' workers run vLLM's CPU build; imported before vLLM is."""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{(os.cpu_count() or 1) - 1}")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def engine_options() -> dict[str, Any]:
    """Of an engine, by this process's arguments: CHECKPOINT ["compiled"]. Without the last one it runs eagerly."""
    checkpoint, *options = sys.argv[1:]
    is_compiled = options == ["compiled"]
    return {
        "model": checkpoint,
        "enforce_eager": not is_compiled,
        "enable_prefix_caching": True,
        "max_model_len": 4096,
    }
