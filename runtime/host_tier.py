"""The tier in host memory: KV that the prefix tree evicts goes here, and comes back by a copy instead of a computation.

It is a prefix tree of its own over memory of the machine, pinned where the device is a GPU. Whatever lies in it lies
there with all that comes before it, so every rule of a prefix tree holds here too: what is evicted first, marks, locks.
The price is that a prefix may lie on both sides; the reward that it is copied out once, however often it comes and
goes. What came back whole goes first here, since nothing is lost by it.

That keys and values in host memory serve as a second level under a prefix tree is HiCache's idea (SGLang); there one
tree has nodes in both places.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from ..ir.errors import UsageError
from .copies import TOKENS_FIRST, TOKENS_FOURTH, Copier, Copy, CopyQueue, Transfer
from .memory import free_memory
from .pool import Extent, KVLayout, KVPool
from .radix import Mark, Node, Order, RadixTree, TokenArray, prefix_len

# Fewer tokens are computed rather than copied: a copy of its own costs as much as a few tokens of a larger chunk.
LEAST_TOKENS = 16
_ALL_MARKED: Order = (inf,)


@dataclass(frozen=True, slots=True)
class HostLayout(KVLayout):
    """KV in host memory: the same shape, in memory that has a token's keys and values of all layers side by side.

    So any run of tokens is one piece, which the hardware copies by itself.
    """

    is_pinned: bool = False

    def empty(self, room: int) -> Tensor:
        """See KVLayout; not contiguous in this order of dimensions."""
        first = (self.num_layers, 2, self.num_kv_heads, room, self.head_dim)
        shape = [first[at] for at in TOKENS_FIRST]
        memory = torch.empty(shape, dtype=self.dtype, device=self.device, pin_memory=self.is_pinned)
        return memory.permute(TOKENS_FOURTH)


@dataclass(eq=False, slots=True)
class Restore:
    """`count` tokens of a prompt, from `start` on, that are brought back; `node` is the last one they lie in.

    transfer: the copy, once it was begun.
    """

    node: Node
    start: int
    count: int
    transfer: Transfer | None = None


class HostTier:
    """At most `capacity` tokens of KV below the prefix tree of a device. Not thread-safe: the engine's thread owns it.

    layout: that of the device. queue: carries out the copies. offloaded_tokens, restored_tokens: copied out, and copied
    back for requests that went on with them. Raises UsageError where the machine has not that much memory.
    """

    def __init__(self, layout: KVLayout, capacity: int, queue: CopyQueue) -> None:
        host = _host_layout(layout)
        _check_memory(host, capacity)
        self.copier = Copier(queue)
        # A copy may still be on its way into what is to be moved.
        self.tree = RadixTree(KVPool(host, capacity, before_move=self.copier.wait_all))
        self.offloaded_tokens = 0
        self.restored_tokens = 0

    def take(self, node: Node, /) -> None:
        """See TierBelow. Not kept is what nobody is going to use, and what has no room beside what is used sooner."""
        if node.last_used == 0 and not node.marks:
            return
        present = self.tree.match(node.prefix())
        self.tree.lock(present)
        if self._make_room(node.end - prefix_len(present), node.marks):
            present = self._add(present, node)
            for mark in node.marks:
                if mark.below is None or mark.below.node is None:
                    mark.below = self.tree.mark(present, mark.order)
        self.tree.unlock(present)

    def flush(self) -> None:
        """See TierBelow."""
        self.copier.flush()

    def unmark(self, mark: Mark, /) -> None:
        """See TierBelow."""
        self.tree.unmark(mark)

    def find(self, tokens: TokenArray, start: int, seconds_per_token: float) -> Restore | None:
        """What of `tokens` is here beyond the first `start`, if it is worth a copy, kept from eviction until `end`.

        seconds_per_token: what computing takes; 0 where that is not known.
        """
        count = self.tree.match_len(tokens) - start
        seconds = self.tree.pool.layout.bytes_per_token * self.copier.seconds_per_byte
        if count < LEAST_TOKENS or 0 < seconds_per_token <= seconds:
            return None
        node = self.tree.last_used_by(tokens)
        assert node is not None
        self.tree.lock(node)
        return Restore(node, start, count)

    def begin(self, restore: Restore, extent: Extent) -> None:
        """Begins to copy what was found to the front of an extent of the device."""
        copies = []
        for step in restore.node.path():
            first, stop = max(step.start, restore.start), min(step.end, restore.start + restore.count)
            if first < stop:
                target = extent.span(first - restore.start, stop - first)
                copies.append(Copy(target, step.extent.span(first - step.start, stop - first)))
        restore.transfer = self.copier.begin(copies)

    def end(self, restore: Restore, *, is_used: bool) -> None:
        """Nobody waits for it any more. is_used: whether a request goes on with it."""
        self.tree.unlock(restore.node)
        if not is_used:
            return
        self.restored_tokens += restore.count
        if restore.node.end == restore.start + restore.count:
            self.tree.demote(restore.node)
        else:
            self.tree.touch(restore.node)

    def check(self, *, is_idle: bool) -> None:
        """Raises AssertionError when a count is wrong or, with nothing running, something was left behind."""
        self.tree.check()
        self.tree.pool.check()
        if is_idle:
            self.copier.wait_all()
            assert self.copier.bytes_in_flight == 0, "copies have ended and their memory is still held"
            assert self.tree.locked_tokens == 0, f"{self.tree.locked_tokens} tokens are locked on the host"
            held, used = self.tree.held_tokens(), self.tree.pool.used
            assert held == used, f"the host's tree holds {held} tokens of the {used} in use"

    def _make_room(self, num_tokens: int, marks: list[Mark]) -> bool:
        """Makes room for so many tokens by evicting what is used later; whether there is."""
        pool = self.tree.pool
        if num_tokens > pool.free:
            spare = min((mark.order for mark in marks), default=_ALL_MARKED)
            self.tree.evict(num_tokens - pool.free, spare=spare, whole=True)
        return num_tokens <= pool.free

    def _add(self, present: Node | None, node: Node) -> Node:
        """Copies what is missing of a path of the device, whose beginning is `present`; moves a lock to its end."""
        copies = []
        for step in reversed(list(node.path())):
            skip = prefix_len(present) - step.start
            room = len(step.tokens) - skip
            if room <= 0:
                continue
            extent = self.tree.pool.allocate(room)
            copies.append(Copy(extent.data, step.extent.span(skip, room)))
            below = self.tree.insert(present, step.tokens[skip:], extent)
            self.tree.lock(below)
            self.tree.unlock(present)
            self.offloaded_tokens += room
            present = below
        self.copier.put_off(copies)
        assert present is not None
        return present


def _host_layout(layout: KVLayout) -> HostLayout:
    return HostLayout(
        layout.num_layers,
        layout.num_kv_heads,
        layout.head_dim,
        layout.dtype,
        torch.device("cpu"),
        is_pinned=layout.device.type == "cuda",
    )


def _check_memory(layout: KVLayout, capacity: int) -> None:
    free = free_memory(layout.device)
    if capacity * layout.bytes_per_token > free:
        raise UsageError(
            f"host_kv_tokens={capacity} takes {capacity * layout.bytes_per_token:,} bytes, of which {free:,} are free",
            help=f"host_kv_tokens={free // layout.bytes_per_token} would fit",
        )
