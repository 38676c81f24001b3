"""From the prefix tree to a file and back: which prefixes are saved, and which of them are loaded where.

The most recently used prefixes come first on both ways; what does not fit any more is cut off at its end, since the
beginning of a prefix is a prefix. A file is loaded whole or not at all: its KV lie beside the tree until all of it is
known to be undamaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .kv_file import KVFile, ModelIdentity, SavedRun, open_kv_file, write_kv_file
from .pool import Extent
from .radix import Node, RadixTree


def save_tree(tree: RadixTree, identity: ModelIdentity, path: Path, *, max_tokens: int | None = None) -> int:
    """Writes the tree, or the max_tokens of it that were used last, to a file; returns how many tokens it holds.

    Raises CacheError.
    """
    runs = list(_runs(tree, tree.num_tokens if max_tokens is None else max_tokens))
    write_kv_file(path, identity, tree.pool.layout, runs)
    return sum(len(run.tokens) for run in runs)


def _runs(tree: RadixTree, room: int) -> Iterator[SavedRun]:
    numbers: dict[int, int] = {}
    for node in _by_use(tree):
        parent = None if node.parent is None else numbers.get(id(node.parent))
        length = min(len(node.tokens), room)
        if length == 0 or (node.parent is not None and parent is None):
            continue
        room -= length
        if length == len(node.tokens):  # only below a whole node may others follow
            numbers[id(node)] = len(numbers)
        yield SavedRun(parent, node.tokens[:length], node.extent)


def _by_use(tree: RadixTree) -> list[Node]:
    """The nodes, what was used last first; a node counts as used when one below it was, so parents come first."""
    nodes = list(tree.nodes())
    used = {id(node): node.last_used for node in nodes}
    for node in reversed(nodes):
        if node.parent is not None:
            used[id(node.parent)] = max(used[id(node.parent)], used[id(node)])
    return sorted(nodes, key=lambda node: (-used[id(node)], node.start))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a block goes in the tree.

    present: the first of its tokens that the tree lacks, counted from the prompt's beginning. extent: room for those
    of them that are loaded; None where there are none.
    """

    present: int
    extent: Extent | None

    @property
    def end(self) -> int:
        """How long the block's prefix will be in the tree."""
        return self.present + (0 if self.extent is None else self.extent.room)


def load_tree(tree: RadixTree, identity: ModelIdentity, path: Path) -> int:
    """Adds a file's prefixes to the tree as far as the pool has free room; returns how many tokens were added.

    Nothing is evicted for them. They count as used now, the last used of them last. Raises CacheError, and leaves
    everything as it was.
    """
    places: list[_Place] = []
    with open_kv_file(path, identity, tree.pool.layout) as file:
        try:
            for number in range(len(file.blocks)):
                _load_next(tree, file, number, places)
        except BaseException:
            for place in places:
                if place.extent is not None:
                    tree.pool.release(place.extent)
            raise
    return _insert(tree, file, places)


def _load_next(tree: RadixTree, file: KVFile, number: int, places: list[_Place]) -> None:
    """Reads the next block into as much room as it needs and there is."""
    block, prefix = file.blocks[number], file.prefix(number)
    start = len(prefix) - block.length
    present = max(start, tree.match_len(prefix))
    is_reached = block.parent is None or places[block.parent].end == start
    room = min(len(prefix) - present, tree.pool.free) if is_reached else 0
    place = _Place(present, tree.pool.allocate(room) if room else None)
    places.append(place)
    file.read_next(tree.pool.layout, place.extent, present - start)


def _insert(tree: RadixTree, file: KVFile, places: list[_Place]) -> int:
    before = tree.num_tokens
    for number, place in enumerate(places):
        if place.extent is not None:
            prefix = file.prefix(number)
            tree.insert(tree.match(prefix[: place.present]), prefix[place.present : place.end], place.extent)
    for number in reversed(range(len(places))):
        tree.match(file.prefix(number)[: places[number].end])
    return tree.num_tokens - before
