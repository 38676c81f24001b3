"""Texts to score after one prompt, as a tree of their tokens: what they begin with in common is computed once.

A tree is computed in chains. A chain is one pass over a path from the prompt, or from a branch of another chain, to an
end; at each of its positions the tokens of all branches are judged, so that only branches that go on need chains of
their own. No token is computed twice, and a text's last token never.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from .request import TokenLogprob


@dataclass(slots=True, eq=False)
class Judged:
    """A token after those before it. logprob: once it was judged. weight: how many texts go through it."""

    token_id: int
    weight: int = 0
    logprob: TokenLogprob | None = None
    after: dict[int, Judged] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """One pass: token_ids, of which those from `start` on are judged. path: these. rest: what goes on from branches."""

    token_ids: tuple[int, ...]
    start: int
    path: tuple[Judged, ...]
    others: tuple[tuple[Judged, ...], ...]
    rest: tuple[Chain, ...]

    @property
    def also(self) -> tuple[tuple[int, ...], ...]:
        """The tokens to be judged beside those of the path, for each of its positions."""
        return tuple(tuple(other.token_id for other in others) for others in self.others)

    def take(self, logprobs: Sequence[TokenLogprob]) -> None:
        """Note what was judged: the path's log-probabilities, those of the others as their `top`."""
        for node, others, judged in zip(self.path, self.others, logprobs, strict=True):
            node.logprob = TokenLogprob(judged.token_id, judged.logprob)
            for other, (token_id, logprob) in zip(others, judged.top, strict=True):
                other.logprob = TokenLogprob(token_id, logprob)

    def walk(self) -> Iterator[Chain]:
        """This chain and all that go on from it."""
        yield self
        for chain in self.rest:
            yield from chain.walk()


class ScoreTree:
    """Gathers texts, by what stands before them."""

    def __init__(self) -> None:
        self._roots: dict[Hashable, tuple[list[int], Judged]] = {}

    def add(self, key: Hashable, before: list[int], token_ids: Sequence[int]) -> list[Judged]:
        """The places of a text's tokens in the tree. key: stands for what is before it."""
        _, node = self._roots.setdefault(key, (before, Judged(-1)))
        places = []
        for token_id in token_ids:
            node = node.after.setdefault(token_id, Judged(token_id))
            node.weight += 1
            places.append(node)
        return places

    def chains(self) -> list[Chain]:
        """The chains that begin at the roots."""
        return [_chain(before, root) for before, root in self._roots.values() if root.after]


def _chain(before: list[int], node: Judged) -> Chain:
    """Goes where most texts go, so that chains go on from chains only a few times."""
    token_ids, path, others, rest = list(before), list[Judged](), list[tuple[Judged, ...]](), list[Chain]()
    while node.after:
        heaviest = max(node.after.values(), key=lambda each: each.weight)
        beside = tuple(each for each in node.after.values() if each is not heaviest)
        rest += [_chain([*token_ids, each.token_id], each) for each in beside if each.after]
        token_ids.append(heaviest.token_id)
        path.append(heaviest)
        others.append(beside)
        node = heaviest
    return Chain(tuple(token_ids), len(before), tuple(path), tuple(others), tuple(rest))
