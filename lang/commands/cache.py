"""`:cache`: what the model in this process has computed and keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ...runtime.engine import EngineStats
from ..cache_file import with_cache
from ..options import Options
from ..session import Session
from .command import Command


def _cache(session: Session, rest: str) -> None:
    local = with_cache(Options().open_backend())
    match rest.split():
        case []:
            for name, said in _statistics(local.stats()):
                session.print(f"{name:<8}  {said}")
        case ["save", file]:
            session.print(f"{file}: {local.save_cache(file):,} tokens saved")
        case ["load", file]:
            session.print(f"{file}: {local.load_cache(file):,} tokens loaded")
        case ["clear"]:
            local.clear_cache()
            session.print(f"{local.stats().cached:,} tokens cached")
        case _:
            CACHE.refuse(rest)


def _statistics(stats: EngineStats) -> Iterator[tuple[str, str]]:
    """What is told of the radix tree: a name and a line each."""
    share = f"{stats.hit_tokens / stats.prompt_tokens:.0%}, " if stats.prompt_tokens else ""
    yield "cached", f"{stats.cached:,} tokens in {stats.nodes:,} nodes, room for {stats.capacity:,}"
    yield "hit rate", f"{share}{stats.hit_tokens:,} of {stats.prompt_tokens:,} prompt tokens"
    yield "evicted", f"{stats.evicted_tokens:,} tokens"
    yield "memory", f"{_size(stats.used * stats.bytes_per_token)} of {_size(stats.capacity * stats.bytes_per_token)}"
    if stats.on_host or stats.offloaded_tokens:
        copied = f"{stats.offloaded_tokens:,} copied there, {stats.restored_tokens:,} back"
        yield "on host", f"{stats.on_host:,} tokens; {copied}"


def _size(num_bytes: int) -> str:
    """In the largest unit of which there is one."""
    size, units = float(num_bytes), ["B", "kB", "MB", "GB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:,.0f} {units[0]}" if units[0] == "B" else f"{size:,.1f} {units[0]}"


def _complete(session: Session, words: Sequence[str]) -> Iterable[str]:
    return ("save", "load", "clear") if len(words) == 1 else ()


CACHE = Command(":cache", "[save FILE | load FILE | clear]", "what the model has computed and keeps", _cache, _complete)
