"""Drafts by lookup: what a generation says next, guessed from where it said the same before.

Much of what is generated stands in the text already: fields that are copied, code that is edited, a speaker who is
quoted. So the tokens that followed the last occurrence of a sequence's end are computed beside its newest token, and
those are kept that the sampler chooses anyway: the tokens are the same, in fewer steps (after prompt lookup decoding,
Saxena 2023, and LLMA, arXiv 2304.04487; with one draw per position that depends on nothing but seed and position, it
holds for sampling too).
"""

from __future__ import annotations

from .plan import Chunk
from .repeats import RepeatIndex

# The most tokens of one draft.
MOST_DRAFTED = 16


class Lookup:
    """Drafts for the sequences of an engine. Not thread-safe: the engine's thread owns it.

    drafted_tokens: computed as drafts so far. accepted_tokens: how many of those were generated.
    """

    def __init__(self, *, max_rows: int) -> None:
        """max_rows: drafts add no rows to a step that has so many."""
        self._max_rows = max_rows
        self.drafted_tokens = 0
        self.accepted_tokens = 0

    def add(self, chunks: list[Chunk]) -> list[Chunk]:
        """The chunks of a step, with drafts."""
        room = self._max_rows - sum(chunk.count for chunk in chunks)
        drafted = []
        for chunk in chunks:
            if room > 0 and _may_draft(chunk):
                chunk = self._with_draft(chunk, room)
                room -= len(chunk.draft)
            drafted.append(chunk)
        return drafted

    def record(self, chunk: Chunk, accepted: int) -> None:
        """So many tokens of a chunk's draft were generated."""
        self.drafted_tokens += len(chunk.draft)
        self.accepted_tokens += accepted

    def _with_draft(self, chunk: Chunk, room: int) -> Chunk:
        sequence = chunk.sequence
        index = sequence.repeats
        if index is None:
            index = sequence.repeats = RepeatIndex(sequence.tokens, sequence.num_tokens)
        else:
            index.advance(sequence.num_tokens)
        draft = index.continuation(min(MOST_DRAFTED, room, sequence.num_left - 1))
        # Where they are read as if they were known, and overwritten by what is.
        sequence.tokens[sequence.num_tokens : sequence.num_tokens + len(draft)] = draft
        return Chunk(sequence, chunk.count, chunk.num_logits, tuple(draft))


def _may_draft(chunk: Chunk) -> bool:
    """Whether the step chooses a token after which more may follow. Processors see only what was generated."""
    sequence = chunk.sequence
    is_free = sequence.matcher is None and not sequence.params.processors
    return is_free and sequence.num_left > 1 and not sequence.is_prefilling and chunk.draws
