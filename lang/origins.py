"""Which of a run's tokens were in the cache and which were computed, and which of them the model still keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..runtime.generation import Generation
from ..runtime.prompt import Prompt
from .run import Run

# A part of a text, and where its tokens came from: "cached", "computed", or "" where that is not known.
Piece = tuple[str, str]
_MOST_NODES = 4000


@dataclass(frozen=True, slots=True)
class Extent:
    """The tokens of a node, by their positions in its sequence: from begin to end, those before `computed` cached."""

    begin: int
    computed: int
    end: int


def extents(run: Run, most_nodes: int = _MOST_NODES) -> dict[Prompt, Extent]:
    """Where the nodes of the run's prompts stand that requests were made from, in tokens.

    Empty where the model tells no tokens, and for runs of more nodes than `most_nodes`. A token that any request of the
    run has computed counts as computed; one that only answers of equal requests served for, as cached.
    """
    if not hasattr(run.state.prompt.context.backend, "tokens"):
        return {}
    cached = _cached_tokens(run, most_nodes)
    if len(cached) > most_nodes:
        return {}
    ends: dict[Prompt | None, int] = {node: len(_token_ids(node)) for node in cached}
    ends[None] = 0
    found = {}
    for node, num_cached in cached.items():
        begin, end = min(ends[node.parent], ends[node]), ends[node]
        found[node] = Extent(begin, min(max(num_cached, begin), end), end)
    return found


def origins(run: Run) -> dict[Prompt, list[Piece]]:
    """The texts of the run's prompts in pieces, as far as `extents` tells where they stand."""
    found = {}
    for node, extent in extents(run).items():
        if node.kind == "text" and isinstance(node.value, str):
            cut = len(node.value) if extent.computed == extent.end else _cut(node, extent)
            found[node] = [(node.value[:cut], "cached"), (node.value[cut:], "computed")]
    return found


def _cut(node: Prompt, extent: Extent) -> int:
    """How many characters of a text its cached tokens are."""
    backend: Any = node.context.backend
    return len(backend.tokens.tokenizer.decode(_token_ids(node)[extent.begin : extent.computed]))


def _token_ids(node: Prompt) -> list[int]:
    backend: Any = node.context.backend
    return backend.tokens.prepare(node).run(warns=False).token_ids  # type: ignore[no-any-return]


def _cached_tokens(run: Run, most_nodes: int) -> dict[Prompt, int]:
    """Of each node that requests were made from, the fewest tokens that one of them has found in the cache."""
    found: dict[Prompt, int] = {}
    for call in run.state.prompt.context.calls:
        if call.done is None:
            continue
        for node in call.prompt.upwards():
            found[node] = min(found.get(node, call.done.cached_tokens), call.done.cached_tokens)
            if len(found) > most_nodes:
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
