"""The fewest prompt tokens that a set of requests can be computed with: the size of their prefix tree.

What an earlier request generated is in the cache for free but for its last token, whose KV nobody needed. So only the
tokens of prompts that nobody computed before count. A request whose whole prompt is there still computes its last
token, to get its logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ramify.runtime.prefix_tree import PrefixTree


@dataclass(frozen=True)
class Served:
    """A request as the engine saw it: its prompt, how much of that came from the cache, and what it generated.

    matchable: how much could have come from it; None for all but the last token. A score needs the logits from before
    its first judged token on.
    """

    prompt: Sequence[int]
    generated: Sequence[int]
    cached: int
    matchable: int | None = None


def prefill_bound(requests: Iterable[Served]) -> int:
    """Prompt tokens that must be computed by any order and any cache."""
    tree = PrefixTree()
    bound = 0
    for request in requests:
        matchable = len(request.prompt) - 1 if request.matchable is None else request.matchable
        bound += len(request.prompt) - min(matchable, tree.match_len(tuple(request.prompt)))
        tree.add((*request.prompt, *request.generated[:-1]))
    return bound


def prefill_tokens(requests: Iterable[Served]) -> int:
    """Prompt tokens that were computed."""
    return sum(len(request.prompt) - request.cached for request in requests)


def prompt_tokens(requests: Iterable[Served]) -> int:
    """Prompt tokens altogether."""
    return sum(len(request.prompt) for request in requests)
