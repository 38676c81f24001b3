"""From the scheduler's choice to one Batch: which rows, where their KV goes, and which KV they read.

Every node of the prefix tree becomes one Read for all sequences below it, which is what makes attention over a shared
prefix read it once. Sequences come sorted by their prompts, so those below a node are mostly neighbours, and their rows
form one range. (Not always: one that started before its prefix was cached computes that prefix itself.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .batch import Batch, Read, Write
from .matcher import Matcher
from .pool import Extent
from .sequence import Sequence

RowRange = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Chunk:
    """`count` tokens of a sequence to compute in this step; the last `num_logits` of them want logits.

    draft: what may follow them if they are all that is known (runtime/lookup.py); it stands in the sequence's array
    already, is computed too, and wants logits. draft_matchers: the states of its constraint after each of these tokens.
    """

    sequence: Sequence
    count: int
    num_logits: int
    draft: tuple[int, ...] = ()
    draft_matchers: tuple[Matcher, ...] = ()

    @property
    def num_rows(self) -> int:
        """Rows of the batch."""
        return self.count + len(self.draft)

    @property
    def num_logit_rows(self) -> int:
        """Rows of the batch that want logits, the last ones of the chunk."""
        return self.num_logits + len(self.draft)

    @property
    def matchers(self) -> list[Matcher | None]:
        """The states of the constraint, if there is one, where the step chooses tokens: after what is known and on."""
        return [self.sequence.matcher, *(self.draft_matchers or [None] * len(self.draft))]

    @property
    def draws(self) -> bool:
        """Whether the last of its logits choose the sequence's next token, and those of its draft the ones after it. To
        be asked before it is computed.
        """
        sequence = self.sequence
        return not sequence.is_score and sequence.computed + self.count == sequence.num_tokens


def build_batch(chunks: list[Chunk]) -> Batch:
    """The batch that computes the chunks, best in the order of their sequences' order_key."""
    stops = np.cumsum([chunk.num_rows for chunk in chunks]).tolist()
    rows: list[RowRange] = [(stop - chunk.num_rows, stop) for chunk, stop in zip(chunks, stops, strict=True)]
    spans = [(chunk.sequence, chunk.sequence.computed, chunk.sequence.computed + chunk.num_rows) for chunk in chunks]
    token_ids = np.concatenate([sequence.tokens[start:stop] for sequence, start, stop in spans])
    positions = np.concatenate([np.arange(start, stop) for _, start, stop in spans])
    logit_rows = np.concatenate([np.arange(r[1] - c.num_logit_rows, r[1]) for c, r in zip(chunks, rows, strict=True)])
    writes, reads = _tails(chunks, rows)
    return Batch(
        token_ids=torch.from_numpy(token_ids),
        positions=torch.from_numpy(positions),
        writes=writes,
        reads=_shared_reads(chunks, rows) + reads,
        logit_rows=torch.from_numpy(logit_rows),
    )


def _tails(chunks: list[Chunk], rows: list[RowRange]) -> tuple[list[Write], list[Read]]:
    """Where every chunk's KV goes, and the causal read of that same extent up to the chunk's end."""
    writes, reads = [], []
    for chunk, (start, stop) in zip(chunks, rows, strict=True):
        extent, offset = _tail(chunk.sequence)
        writes.append(Write(extent, offset, start, stop))
        reads.append(Read(extent, offset + chunk.num_rows, [(start, stop)], causal=True))
    return writes, reads


def _tail(sequence: Sequence) -> tuple[Extent, int]:
    """The extent that takes the sequence's next token, and the place in it."""
    if sequence.is_prefilling:
        assert sequence.prompt_extent is not None
        return sequence.prompt_extent, sequence.computed - sequence.tail_start
    assert sequence.generated_extent is not None
    return sequence.generated_extent, sequence.computed - sequence.prompt_len


def _shared_reads(chunks: list[Chunk], rows: list[RowRange]) -> list[Read]:
    """One read for every node above the chunks' sequences, and for every prompt that is not in the tree."""
    reads: dict[Extent, list[RowRange]] = {}
    for chunk, (start, stop) in zip(chunks, rows, strict=True):
        for extent in _extents_before(chunk.sequence):
            ranges = reads.setdefault(extent, [])
            if ranges and ranges[-1][1] == start:
                ranges[-1] = (ranges[-1][0], stop)
            else:
                ranges.append((start, stop))
    return [Read(extent, extent.room, ranges, causal=False) for extent, ranges in reads.items()]


def _extents_before(sequence: Sequence) -> list[Extent]:
    """The extents that every row of the sequence sees whole."""
    extents = [] if sequence.node is None else [node.extent for node in sequence.node.path()]
    if not sequence.is_prefilling and sequence.prompt_extent is not None:
        extents.append(sequence.prompt_extent)
    return extents
