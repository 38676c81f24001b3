"""How good a prompt is for a query whose label is known, and what an edit of it earns."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["REWARD_SCALE", "Scoring"]

REWARD_SCALE = 100.0


@dataclass(frozen=True, slots=True)
class Scoring:
    """The weighted margin of the right label over the best other one, in probability or in log-probability.

    `right` and `wrong` weigh the margin where the right label is the likeliest and where it is not.
    """

    right: float = 2.0
    wrong: float = 1.8
    logarithmic: bool = False

    def score(self, probabilities: Sequence[float], label: int) -> float:
        """The score of a prompt with these label probabilities."""
        values = [math.log(max(p, sys.float_info.min)) for p in probabilities] if self.logarithmic else probabilities
        margin = values[label] - max(value for number, value in enumerate(values) if number != label)
        return (self.right if margin > 0 else self.wrong) * margin

    def reward(self, before: float, after: float) -> float:
        """What an edit earns that changed the score."""
        return REWARD_SCALE * (after - before)
