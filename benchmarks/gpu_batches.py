"""Batches as the engine builds them, for measuring the model alone: decoding branches, and a prompt in one chunk."""

from __future__ import annotations

from dataclasses import replace

import torch
from ramify.runtime.batch import Batch, Read, Write
from ramify.runtime.pool import Extent, KVLayout, KVPool

# What a branch has generated; it lies in an extent of its own, as the engine has it.
GENERATED = 16


def decode_batch(layout: KVLayout, branches: int, shared: int, own: int) -> Batch:
    """A new token for each of the branches, below `shared` tokens that all have and `own` tokens of a prompt each.

    Keys and values are random.
    """
    room = GENERATED + 1
    pool = KVPool(layout, shared + branches * (own + room))
    prefix = _filled(pool, shared)
    prompts = [_filled(pool, own) for _ in range(branches)]
    tails = [_filled(pool, room) for _ in range(branches)]
    rows = [(row, row + 1) for row in range(branches)]
    reads = [Read(extent, extent.room, [(0, branches)], False) for extent in prefix]
    reads += [
        Read(extent, extent.room, [row], False) for found, row in zip(prompts, rows, strict=True) for extent in found
    ]
    reads += [Read(tail, room, [row], True) for (tail,), row in zip(tails, rows, strict=True)]
    writes = [Write(tail, GENERATED, *row) for (tail,), row in zip(tails, rows, strict=True)]
    positions = torch.full((branches,), shared + own + GENERATED)
    return Batch(torch.arange(branches) + 16, positions, writes, reads, torch.arange(branches))


def prefill_batch(layout: KVLayout, num_tokens: int, vocab_size: int) -> Batch:
    """A prompt from its beginning, whose last row wants logits."""
    extent = KVPool(layout, num_tokens).allocate(num_tokens)
    rows = (0, num_tokens)
    return Batch(
        torch.randint(16, vocab_size, (num_tokens,), generator=torch.Generator().manual_seed(0)),
        torch.arange(num_tokens),
        [Write(extent, 0, *rows)],
        [Read(extent, num_tokens, [rows], True)],
        torch.tensor([num_tokens - 1]),
    )


def flat(batch: Batch) -> Batch:
    """The same batch without tree attention: every row reads all that it sees on its own."""
    reads = []
    for read in batch.reads:
        for start, stop in read.rows:
            for row in range(start, stop):
                length = read.length - (stop - 1 - row) if read.causal else read.length
                reads.append(Read(read.extent, length, [(row, row + 1)], False))
    return replace(batch, reads=reads)


def distinct_tokens(batch: Batch) -> int:
    """Tokens whose KV the batch has to read, each counted once."""
    return sum({read.extent: read.length for read in batch.reads}.values())


def _filled(pool: KVPool, room: int) -> list[Extent]:
    if not room:
        return []
    extent = pool.allocate(room)
    extent.data.normal_()
    return [extent]
