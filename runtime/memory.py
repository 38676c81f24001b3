"""How much memory a device has left, and how much of it the KV cache takes by default."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from .pool import KVLayout

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_CPU_SHARE, _CPU_MOST = 0.25, 8 << 30
_MOST_SHARE = 0.8


def default_kv_tokens(layout: KVLayout, context_length: int, max_running: int) -> int:
    """Tokens of KV that an engine keeps when nobody says how many.

    On CUDA 80 % of the memory that is free now (with the weights loaded), elsewhere a quarter of it but not more than
    8 GiB; never more than `max_running` whole contexts, and at least one context where 80 % of what is free hold it.
    Memory is taken as it is needed, so this is a limit and not a reservation.
    """
    free = free_memory(layout.device)
    limit = free * _MOST_SHARE if layout.device.type == "cuda" else min(free * _CPU_SHARE, _CPU_MOST)
    tokens = min(int(limit) // layout.bytes_per_token, max_running * context_length)
    most = int(free * _MOST_SHARE) // layout.bytes_per_token
    return max(tokens, min(context_length, most), 1)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on the device; for the CPU, the smaller of the machine's and the cgroup's."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch holds for tensors to come, such as the memory of a model that is gone, is taken again by the next.
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    limits = [_machine_free(), _cgroup_free()]
    return min(limit for limit in limits if limit is not None)


def _machine_free() -> int:
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _cgroup_free() -> int | None:
    """What the control group (version 2) leaves, or None where it sets no limit."""
    try:
        most = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        # Pages of files that were read count as used, and go when somebody needs the memory.
        cached = int(counts.get("active_file", 0)) + int(counts.get("inactive_file", 0))
    except (OSError, ValueError):
        return None
    return max(0, int(most) - used + cached) if most.isdigit() else None
