"""From the scheduler's choice to one Batch: which rows, where their KV goes, and which KV they read.

Every node of the prefix tree becomes one Read for all sequences below it, which is what makes attention over a shared
prefix read it once. Sequences come sorted by their prompts, so those below a node are mostly neighbours, and their rows
form one range. (Not always: one that started before its prefix was cached computes that prefix itself.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .batch import Batch, Later, Read, Series, Write
from .matcher import Matcher
from .pool import Extent, KVPool
from .radix import Node
from .sequence import Sequence
from .transfer import upload

RowRange = tuple[int, int]


@dataclass(eq=False, slots=True)  # not frozen: one is made for each token, and frozen ones take three times as long
class Chunk:
    """`count` tokens of a sequence to compute in this step; the last `num_logits` of them want logits, or, where hidden
    states were asked for, these.

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
        if sequence.is_score or sequence.is_embedding:
            return False
        return sequence.computed + self.count == sequence.num_placed


class Round(list[Chunk]):
    """The chunks of a step in which every sequence computes its newest token alone and chooses the next one.

    The scheduler gives the same one again as long as the same sequences go on so. What such a step does to KV is then
    what the one before did, one token further on, so most of its batch need not be made anew. is_greedy: whether all
    choose the largest logit, without edits and log-probabilities.
    """

    def __init__(self, chunks: list[Chunk], pool: KVPool) -> None:
        super().__init__(chunks)
        self.is_greedy = all(chunk.sequence.is_greedy for chunk in chunks)
        self._pool = pool
        self._changes = -1
        self._first: Batch | None = None
        self._positions = np.zeros(0, np.int64)

    @property
    def goes_on(self) -> bool:
        """Whether the next step of the same sequences is such a step too."""
        sequences = [chunk.sequence for chunk in self]
        return all(each.computed + 1 == each.num_tokens + each.num_pending < each.end for each in sequences)

    @property
    def positions(self) -> NDArray[np.int64]:
        """Those of its rows."""
        return np.array([chunk.sequence.computed for chunk in self], np.int64)

    def begin(self, batch: Batch) -> Batch:
        """The batch that it is now, made for it, which the next ones follow as long as nothing is moved in the pool."""
        self._first = replace(batch, series=Series())
        self._changes, self._positions = self._pool.changes, self.positions
        return self._first

    def follow(self, positions: NDArray[np.int64]) -> Batch | None:
        """The batch that it is now, but for its tokens and positions; None where one has to be made."""
        first = self._first
        if first is None or self._changes != self._pool.changes:
            return None
        turns = positions - self._positions
        turn = int(turns[0])
        if (turns != turn).any():
            return None
        writes, reads = Later(partial(_writes_later, first, turn)), Later(partial(_reads_later, first, turn))
        tensors = first.token_ids, first.positions
        return Batch(*tensors, writes, reads, first.logit_rows, first.series, turn, first.adapters)


def _writes_later(first: Batch, turn: int) -> list[Write]:
    """Those of a batch of a series, so many tokens after the first."""
    return [Write(extent, offset + turn, start, stop) for extent, offset, start, stop in first.writes]


def _reads_later(first: Batch, turn: int) -> list[Read]:
    num_shared = len(first.reads) - len(first.writes)
    tails = [read._replace(length=read.length + turn) for read in first.reads[num_shared:]]
    return [*first.reads[:num_shared], *tails]


class Chosen(NamedTuple):
    """What a step in flight chooses. token_ids: int64 (n,), on the device. places: where among them a sequence's is."""

    token_ids: Tensor
    places: dict[Sequence, int]


_CPU = torch.device("cpu")


def build_batch(
    chunks: list[Chunk], chosen: Chosen | None = None, *, device: torch.device = _CPU, tree_attention: bool = True
) -> Batch:
    """The batch that computes the chunks, best in the order of their sequences' order_key.

    Its tensors are on `device`, but for logit_rows, since the host must be able to tell whether they are all rows.
    chosen: where the tokens are that the host does not know yet. tree_attention: whether a node is read once for all
    sequences below it; if not, once for each, with the same result.
    """
    if not isinstance(chunks, Round):
        return _new_batch(chunks, chosen, device, tree_attention)
    positions = chunks.positions
    batch = chunks.follow(positions)
    if batch is None:
        return chunks.begin(_new_batch(chunks, chosen, device, tree_attention))
    computed: list[int] = positions.tolist()
    token_ids = [chunk.sequence.tokens.item(place) for chunk, place in zip(chunks, computed, strict=True)]
    unknown: list[int] = []
    if chosen is not None:  # else the host knows all tokens
        unknown = [row for row, place in enumerate(computed) if place >= chunks[row].sequence.num_tokens]
    choosing = [chunks[row].sequence for row in unknown]
    ids, at = _tokens(token_ids, computed, unknown, choosing, chosen, device)
    return replace(batch, token_ids=ids, positions=at)


def _new_batch(chunks: list[Chunk], chosen: Chosen | None, device: torch.device, tree_attention: bool) -> Batch:
    token_ids: list[int] = []
    positions: list[int] = []
    logit_rows: list[int] = []
    rows: list[RowRange] = []
    writes, reads = [], []
    unknown: list[int] = []
    choosing: list[Sequence] = []
    adapters: dict[str, list[RowRange]] = {}
    for chunk in chunks:
        sequence, count = chunk.sequence, chunk.num_rows
        first, start = sequence.computed, len(token_ids)
        stop = start + count
        extent, offset = _tail(sequence)
        token_ids += sequence.tokens[first : first + count].tolist()
        if first + chunk.count > sequence.num_tokens:
            unknown.append(stop - 1)
            choosing.append(sequence)
        positions += range(first, first + count)
        logit_rows += range(stop - chunk.num_logit_rows, stop)
        rows.append((start, stop))
        if sequence.params.adapter is not None:
            adapters.setdefault(sequence.params.adapter, []).append((start, stop))
        writes.append(Write(extent, offset, start, stop))
        reads.append(Read(extent, offset + count, [(start, stop)], True, first - offset))
    shared = _shared_reads(chunks, rows)
    ids, at = _tokens(token_ids, positions, unknown, choosing, chosen, device)
    return Batch(
        token_ids=ids,
        positions=at,
        writes=writes,
        reads=(shared if tree_attention else _apart(shared, rows)) + reads,
        logit_rows=torch.tensor(logit_rows, dtype=torch.int64),
        adapters=adapters,
    )


def _tokens(
    token_ids: list[int],
    positions: list[int],
    unknown: list[int],
    choosing: list[Sequence],
    chosen: Chosen | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """The tokens of a batch's rows and their positions, on the device.

    unknown: the rows whose tokens are being chosen, for the sequences `choosing`.
    """
    if unknown:
        assert chosen is not None, "a token is computed before it is chosen"
    places = [chosen.places[sequence] for sequence in choosing] if chosen is not None and unknown else []
    numbers = upload(np.array(token_ids + positions + unknown + places, np.int64), torch.int64, device)
    ids, at, rows_of, places_of = numbers.split_with_sizes([len(token_ids), len(positions), len(unknown), len(places)])
    if chosen is not None and unknown:
        ids.index_copy_(0, rows_of, chosen.token_ids.index_select(0, places_of))
    return ids, at


def _tail(sequence: Sequence) -> tuple[Extent, int]:
    """The extent that takes the sequence's next token, and the place in it."""
    if sequence.computed < sequence.target:
        assert sequence.prompt_extent is not None
        return sequence.prompt_extent, sequence.computed - sequence.tail_start
    assert sequence.generated_extent is not None
    return sequence.generated_extent, sequence.computed - sequence.prompt_len


def _shared_reads(chunks: list[Chunk], rows: list[RowRange]) -> list[Read]:
    """One read for every node above the chunks' sequences, and for every prompt that is not in the tree."""
    reads: dict[Extent, list[RowRange]] = {}
    starts: dict[Extent, int] = {}
    for node, (start, stop) in _by_node(chunks, rows):
        for step in node.path():
            ranges = reads.setdefault(step.extent, [])
            starts[step.extent] = step.start
            if ranges and ranges[-1][1] == start:
                ranges[-1] = (ranges[-1][0], stop)
            else:
                ranges.append((start, stop))
    for chunk, place in zip(chunks, rows, strict=True):
        prompt = chunk.sequence.prompt_extent
        if prompt is not None and not chunk.sequence.is_prefilling:
            reads[prompt] = [place]
            starts[prompt] = chunk.sequence.tail_start
    return [Read(extent, extent.room, ranges, False, starts[extent]) for extent, ranges in reads.items()]


def _apart(reads: list[Read], rows: list[RowRange]) -> list[Read]:
    """The same reads, each for one sequence; `rows` are those of the sequences."""
    return [
        read._replace(rows=[place])
        for read in reads
        for start, stop in read.rows
        for place in rows
        if start <= place[0] and place[1] <= stop
    ]


def _by_node(chunks: list[Chunk], rows: list[RowRange]) -> list[tuple[Node, RowRange]]:
    """The rows of neighbours whose paths in the tree end at one node, as one range."""
    found: list[tuple[Node, RowRange]] = []
    last: Node | None = None
    for chunk, place in zip(chunks, rows, strict=True):
        node = chunk.sequence.node
        if node is not None and node is last:
            found[-1] = (node, (found[-1][1][0], place[1]))
        elif node is not None:
            found.append((node, place))
        last = node
    return found
