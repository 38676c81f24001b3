"""Invented reviews as editing problems: what most queries' words mean only an exemplar of the pool tells.

A problem has 16 exemplars, of which 12 use a made-up opinion word each and 4 an ordinary one. Queries use these words,
so with the first four exemplars in the prompt a query's made-up word is mostly unknown.
"""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from ramify.backends.tiny.reviews import MADE_UP, OPINIONS, Review, draw_review

from .environment import NUM_POOL, NUM_SLOTS
from .tasks import Row, Split

Item = TypeVar("Item")

__all__ = ["draw_split"]

NUM_MADE_UP = 12
MADE_UP_SHARE = 0.75


def draw_split(seed: int, num_train: int = 128, num_dev: int = 64, num_test: int = 128) -> Split:
    """A problem in the form of a k-shot folder, its exemplars first in `train`; equal seeds give equal problems."""
    rng = Random(f"tempera/{seed}")
    polarities = balanced(rng, NUM_MADE_UP)
    lexicon = list(zip(rng.sample(MADE_UP, NUM_MADE_UP), polarities, strict=True))
    known = [ordinary(rng, polarity) for polarity in balanced(rng, NUM_SLOTS + NUM_POOL - NUM_MADE_UP)]
    exemplars = [draw_review(rng, *opinion) for opinion in shuffled(rng, [*lexicon, *known])]
    queries = [draw_query(rng, lexicon) for _ in range(num_train + num_dev + num_test)]
    rows = [Row(review.text, review.polarity) for review in queries]
    train = [Row(review.text, review.polarity) for review in exemplars] + rows[:num_train]
    return Split(tuple(train), tuple(rows[num_train:-num_test]), tuple(rows[-num_test:]))


def draw_query(rng: Random, lexicon: Sequence[tuple[str, int]]) -> Review:
    """A review with one of the problem's made-up words, or with an ordinary one."""
    is_made_up = rng.random() < MADE_UP_SHARE
    return draw_review(rng, *(rng.choice(lexicon) if is_made_up else ordinary(rng, rng.randrange(2))))


def ordinary(rng: Random, polarity: int) -> tuple[str, int]:
    """An ordinary opinion word of a polarity, with it."""
    return rng.choice(OPINIONS[polarity]), polarity


def balanced(rng: Random, count: int) -> list[int]:
    """As many of one polarity as of the other, in any order."""
    return shuffled(rng, [number % 2 for number in range(count)])


def shuffled(rng: Random, items: Sequence[Item]) -> list[Item]:
    """The items in another order."""
    return rng.sample(list(items), len(items))
