"""Which of a run's tokens were in the cache and which were computed, and which of them the model still keeps."""

from __future__ import annotations

from typing import Any

from ..runtime.generation import Generation
from ..runtime.prompt import Prompt
from .run import Run

# A part of a text, and where its tokens came from: "cached", "computed", or "" where that is not known.
Piece = tuple[str, str]
_MOST_NODES = 4000


def origins(run: Run) -> dict[Prompt, list[Piece]]:
    """The texts of the run's prompts in pieces. Empty where the model tells no tokens, and for very large runs.

    A token that any request of the run has computed counts as computed.
    """
    tokens = getattr(run.state.prompt.context.backend, "tokens", None)
    cached = _cached_tokens(run)
    if tokens is None or len(cached) > _MOST_NODES:
        return {}
    ends: dict[Prompt, list[int]] = {}
    for node in cached:
        ends[node] = tokens.prepare(node).run(warns=False).token_ids
    found = {}
    for node, num_cached in cached.items():
        if node.kind != "text" or not isinstance(node.value, str) or node.parent is None:
            continue
        begin = len(ends[node.parent])
        own = ends[node][begin:num_cached] if num_cached < len(ends[node]) else None
        cut = len(node.value) if own is None else len(tokens.tokenizer.decode(own))
        found[node] = [(node.value[:cut], "cached"), (node.value[cut:], "computed")]
    return found


def _cached_tokens(run: Run) -> dict[Prompt, int]:
    """Of each node that requests were made from, the fewest tokens that one of them has found in the cache."""
    found: dict[Prompt, int] = {}
    for call in run.state.prompt.context.calls:
        if call.done is None or call.done.shared:
            continue
        for node in call.prompt.upwards():
            found[node] = min(found.get(node, call.done.cached_tokens), call.done.cached_tokens)
            if len(found) > _MOST_NODES:
                return found
    return dict(reversed(found.items()))


def still_cached(call: Generation) -> tuple[int, int] | None:
    """How many tokens of a request and its answer the model keeps now, and of how many; None where nobody knows."""
    backend: Any = call.context.backend
    if call.done is None or not hasattr(backend, "cached_len"):
        return None
    # The last token that was generated was not computed from, and neither is what a choice ends with.
    token_ids = [*backend.tokens.prepare(call.prompt).run(warns=False).token_ids, *call.done.token_ids[:-1]]
    return min(backend.cached_len(token_ids), len(token_ids)), len(token_ids)
