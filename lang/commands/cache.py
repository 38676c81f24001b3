"""`:cache`: what the model in this process has computed and keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..cache_file import with_cache
from ..options import Options
from ..session import Session
from .command import Command


def _cache(session: Session, rest: str) -> None:
    local = with_cache(Options().open_backend())
    match rest.split():
        case []:
            stats = local.stats()
            said = f"{stats.cached:,} tokens cached, room for {stats.capacity:,}; {stats.hit_tokens:,} were used again"
        case ["save", file]:
            said = f"{file}: {local.save_cache(file):,} tokens saved"
        case ["load", file]:
            said = f"{file}: {local.load_cache(file):,} tokens loaded"
        case ["clear"]:
            local.clear_cache()
            said = f"{local.stats().cached:,} tokens cached"
        case _:
            CACHE.refuse(rest)
    session.print(said)


def _complete(session: Session, words: Sequence[str]) -> Iterable[str]:
    return ("save", "load", "clear") if len(words) == 1 else ()


CACHE = Command(":cache", "[save FILE | load FILE | clear]", "what the model has computed and keeps", _cache, _complete)
