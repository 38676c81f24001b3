"""The tree of all beginnings that token sequences share: what an ample prefix cache would hold.

It only counts. The engine's own tree (runtime/radix.py) also holds KV, locks and evicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class PrefixNode:
    """A run of tokens without a fork. uses: how many sequences go through it; owner: what the first of them was for."""

    tokens: Sequence[int]
    owner: object = None
    uses: int = 0
    children: dict[int, PrefixNode] = field(default_factory=dict)

    def walk(self) -> Iterator[PrefixNode]:
        """This node and all below it."""
        todo = [self]
        while todo:
            node = todo.pop()
            yield node
            todo.extend(node.children.values())


class PrefixTree:
    """A radix tree over token ids. num_tokens: the tokens of all its nodes."""

    def __init__(self) -> None:
        self.root = PrefixNode(())
        self.num_tokens = 0

    def match_len(self, tokens: Sequence[int]) -> int:
        """How many of the first tokens are in the tree."""
        node, at = self.root, 0
        while at < len(tokens) and (child := node.children.get(tokens[at])) is not None:
            common = _common_len(child.tokens, tokens, at)
            at += common
            if common < len(child.tokens):
                break
            node = child
        return at

    def add(self, tokens: Sequence[int], owner: object = None) -> int:
        """Put a sequence in; gives how many of its tokens are new. owner: what new nodes are marked with."""
        node, at = self.root, 0
        node.uses += 1
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None:
                node.children[tokens[at]] = PrefixNode(tokens[at:], owner, 1)
                self.num_tokens += len(tokens) - at
                return len(tokens) - at
            common = _common_len(child.tokens, tokens, at)
            if common < len(child.tokens):
                _split(child, common)
            child.uses += 1
            node, at = child, at + common
        return 0


def _split(node: PrefixNode, at: int) -> None:
    """Make a node end after its first `at` tokens, with the rest as its only child."""
    rest = PrefixNode(node.tokens[at:], node.owner, node.uses, node.children)
    node.tokens, node.children = node.tokens[:at], {rest.tokens[0]: rest}


def _common_len(own: Sequence[int], tokens: Sequence[int], at: int) -> int:
    """How many tokens of a node and of a sequence from `at` on are the same."""
    most = min(len(own), len(tokens) - at)
    if own[:most] == tokens[at : at + most]:
        return most
    return next(index for index in range(most) if own[index] != tokens[at + index])
