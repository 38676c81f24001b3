"""Random trees of reads, as forked programs make them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import torch
from ramify.runtime.batch import Batch, Read, Write
from ramify.runtime.pool import Extent, KVLayout, KVPool


@dataclass
class Tree:
    """A batch under construction and, for every row, the extents it sees and how far."""

    pool: KVPool
    rng: random.Random
    rows: list[list[tuple[Extent, int]]] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)

    def extent(self, room: int) -> Extent:
        """An extent full of random numbers, at times a part of a larger storage."""
        extent = self.pool.allocate(room + 3)
        extent.data.normal_()
        return self.pool.split(extent, room)[0] if self.rng.random() < 0.5 else self.pool.split(extent, 3)[1]

    def grow(self, path: list[Extent], depth: int) -> list[tuple[int, int]]:
        """Adds what lies below a node and returns the row ranges of the sequences there."""
        if depth == 0 or self.rng.random() < 0.25:
            return [self.sequence(path)]
        node = self.extent(self.rng.randint(1, 9))
        ranges = [rows for _ in range(self.rng.randint(1, 3)) for rows in self.grow([*path, node], depth - 1)]
        self.reads.append(Read(node, node.room, ranges if self.rng.random() < 0.3 else _joined(ranges), False))
        return ranges

    def sequence(self, path: list[Extent]) -> tuple[int, int]:
        """A running sequence with old tokens of its own and one or more new ones."""
        old, new = self.rng.choice([0, 0, 4]), self.rng.choice([1, 1, 1, 2, 5])
        tail = self.extent(old + new + self.rng.randint(0, 2))
        start = len(self.rows)
        prefix = [(node, node.room) for node in path]
        self.rows += [[*prefix, (tail, old + i + 1)] for i in range(new)]
        self.writes.append(Write(tail, old, start, start + new))
        self.reads.append(Read(tail, old + new, [(start, start + new)], new > 1 or self.rng.random() < 0.5))
        return start, start + new

    def batch(self) -> Batch:
        self.rng.shuffle(self.writes)
        if self.rng.random() < 0.5:
            self.reads.reverse()
        positions = torch.tensor([sum(length for _, length in row) - 1 for row in self.rows])
        batch = Batch(torch.zeros_like(positions), positions, self.writes, self.reads, torch.tensor([0]))
        batch.check()
        return batch


def random_tree(seed: int, layout: KVLayout) -> Tree:
    """Some roots and what is below them."""
    torch.manual_seed(seed)
    tree = Tree(KVPool(layout, 10_000), random.Random(seed))
    for _ in range(tree.rng.randint(1, 3)):
        tree.grow([], tree.rng.randint(0, 4))
    return tree


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined = ranges[:1]
    for start, stop in ranges[1:]:
        if joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined
