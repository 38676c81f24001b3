"""From the prefix trees to a file and back: which prefixes are saved, and which of them are loaded where.

The most recently used prefixes come first on both ways; what does not fit any more is cut off at its end, since the
beginning of a prefix is a prefix. A file is loaded whole or not at all: its KV lie beside the trees until all of it is
known to be undamaged. With a tier in host memory, what is only there follows what is on the device; and of a file that
has more than the device has room for, the host gets what it has room for too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .kv_file import KVFile, ModelIdentity, SavedRun, open_kv_file, write_kv_file
from .pool import Extent
from .radix import Node, RadixTree, prefix_len


def save_tree(
    tree: RadixTree,
    identity: ModelIdentity,
    path: Path,
    *,
    host: RadixTree | None = None,
    max_tokens: int | None = None,
) -> int:
    """Writes a tree, or the max_tokens of it that were used last, to a file; returns how many tokens it holds.

    host: what else is cached, all of which has to be there. Raises CacheError.
    """
    num_tokens = tree.num_tokens + (0 if host is None else host.num_tokens)
    runs = list(_runs(tree, host, num_tokens if max_tokens is None else max_tokens))
    write_kv_file(path, identity, tree.pool.layout, runs)
    return sum(len(run.tokens) for run in runs)


def _runs(tree: RadixTree, host: RadixTree | None, room: int) -> Iterator[SavedRun]:
    """The runs of the tree, and those that only the host has, up to so many tokens."""
    numbers: dict[Node, int] = {}
    num_runs = 0
    on_device = {} if host is None else _aligned(tree, host)
    for node in _by_use(tree) + ([] if host is None else _by_use(host)):
        if (same := on_device.get(node)) is not None:
            if same in numbers:
                numbers[node] = numbers[same]
            continue
        parent = None if node.parent is None else numbers.get(node.parent)
        length = min(len(node.tokens), room)
        if length == 0 or (node.parent is not None and parent is None):
            continue
        room -= length
        if length == len(node.tokens):  # only below a whole node may others follow
            numbers[node] = num_runs
        num_runs += 1
        yield SavedRun(parent, node.tokens[:length], node.extent)


def _aligned(tree: RadixTree, host: RadixTree) -> dict[Node, Node]:
    """Cuts the nodes of both trees so that those of the host are on the device whole or not at all; which of them are,
    and as which node there.
    """
    for node in list(host.nodes()):
        tokens = node.prefix()
        present = prefix_len(tree.cut(tokens))
        if node.start < present < node.end:
            host.cut(tokens[:present])
    found = {node: tree.cut(node.prefix()) for node in host.nodes()}
    return {node: twin for node, twin in found.items() if twin is not None and twin.end == node.end}


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


def load_tree(tree: RadixTree, identity: ModelIdentity, path: Path, *, host: RadixTree | None = None) -> int:
    """Adds a file's prefixes to the tree as far as the pool has free room; returns how many tokens are cached now that
    were not.

    Nothing is evicted for them. They count as used now, the last used of them last. host: gets them too if the file has
    more than there is room for. Raises CacheError, and leaves everything as it was.
    """
    with open_kv_file(path, identity, tree.pool.layout) as file:
        fits = _num_missing(tree, file) <= tree.pool.free
        loads = [_Load(each) for each in (tree, None if fits else host) if each is not None]
        try:
            for number in range(len(file.blocks)):
                file.read_next(tree.pool.layout, [fill for load in loads for fill in load.take_room(file, number)])
        except BaseException:
            for load in loads:
                load.give_back()
            raise
    for load in loads:
        load.insert(file)
    places = list(zip(*(load.places for load in loads), strict=True))
    return sum(max(place.end for place in both) - max(place.present for place in both) for both in places)


def _num_missing(tree: RadixTree, file: KVFile) -> int:
    """Tokens of a file that the tree lacks."""
    prefixes = (file.prefix(number) for number in range(len(file.blocks)))
    missing = (len(prefix) - tree.match_len(prefix) for prefix in prefixes)
    return sum(min(block.length, count) for block, count in zip(file.blocks, missing, strict=True))


class _Load:
    """What of a file goes into one tree. places: those of its blocks so far."""

    def __init__(self, tree: RadixTree) -> None:
        self.places: list[_Place] = []
        self._tree = tree

    def take_room(self, file: KVFile, number: int) -> list[tuple[Extent, int]]:
        """Takes as much room for the next block as it needs and there is: what to fill, from which of its tokens on."""
        block, prefix = file.blocks[number], file.prefix(number)
        start = len(prefix) - block.length
        present = max(start, self._tree.match_len(prefix))
        is_reached = block.parent is None or self.places[block.parent].end == start
        room = min(len(prefix) - present, self._tree.pool.free) if is_reached else 0
        extent = self._tree.pool.allocate(room) if room else None
        self.places.append(_Place(present, extent))
        return [] if extent is None else [(extent, present - start)]

    def give_back(self) -> None:
        """Leaves the tree as it was."""
        for place in self.places:
            if place.extent is not None:
                self._tree.pool.release(place.extent)

    def insert(self, file: KVFile) -> None:
        """Puts what was read into the tree, what was used last as the last."""
        for number, place in enumerate(self.places):
            if place.extent is not None:
                prefix = file.prefix(number)
                self._tree.insert(
                    self._tree.match(prefix[: place.present]), prefix[place.present : place.end], place.extent
                )
        for number in reversed(range(len(self.places))):
            self._tree.match(file.prefix(number)[: self.places[number].end])
