"""What drafts cost and gain: how many tokens of a guess are worth computing.

Everything is counted in generated tokens: a step without drafts takes some time for each of its sequences, and as many
tokens as that time would have given is what a draft costs: something at once, and something for each row. How much is
assumed from a small model on a CPU; what this machine takes for this model is learned from the steps themselves.
"""

from __future__ import annotations

from math import log

# The most tokens of one draft.
MOST_DRAFTED = 16
# A draft has to promise so much more than it costs.
_MARGIN = 1.25
# How much of the newest measurement is in a mean.
_NEWEST = 0.1
_LEAST_PRICE, _MOST_PRICE = 0.05, 4.0
# How much of the price is forgotten with each step without drafts: one that allows none would otherwise stay.
_FORGOTTEN = 0.005
# One step may be held up by something else: what it counts at most, in parts of the mean.
_MOST_SURPRISE = 2.0
# From so many steps on a mean is trusted.
_TRUSTED_STEPS = 4


class DraftCosts:
    """price: what drafts cost here, in parts of what is assumed."""

    def __init__(self) -> None:
        self.price = 1.0
        self._plain: dict[int, tuple[int, float]] = {}

    def can_win(self, num_sequences: int) -> bool:
        """Whether any draft could be worth it where so many sequences decode together."""
        return self.best_len(1.0, num_sequences, MOST_DRAFTED) > 0

    def best_len(self, likely: float, num_sequences: int, most: int) -> int:
        """How many tokens to draft, at most so many, where each is `likely` right when those before it are."""
        once, each = (self.price * cost for cost in _costs(num_sequences))
        count = most if likely >= 1 else 0 if likely <= each else min(most, int(log(each) / log(likely)))
        return count if count and _gain(likely, count) > _MARGIN * (once + each * count) else 0

    def took(self, num_sequences: int, num_drafts: int, num_drafted: int, seconds: float) -> None:
        """A step of so many decoding sequences, and nothing else, took so long."""
        steps, plain = self._plain.get(num_sequences, (0, seconds))
        if not num_drafts:
            mean = plain + max(_NEWEST, 1 / (steps + 1)) * (min(seconds, _MOST_SURPRISE * plain) - plain)
            self._plain[num_sequences] = steps + 1, mean
            self.price += _FORGOTTEN * (1 - self.price)
        elif steps >= _TRUSTED_STEPS:
            once, each = _costs(num_sequences)
            assumed = (once * num_drafts + each * num_drafted) * plain / num_sequences
            price = min(max((seconds - plain) / assumed, 0.0), _MOST_SURPRISE * self.price)
            self.price = min(max(self.price + _NEWEST * (price - self.price), _LEAST_PRICE), _MOST_PRICE)


def _gain(likely: float, count: int) -> float:
    """How many of `count` drafted tokens are accepted."""
    return float(count) if likely >= 1 else likely * (1 - likely**count) / (1 - likely)


def _costs(num_sequences: int) -> tuple[float, float]:
    """What a draft and each of its rows cost, in tokens, where so many sequences decode together.

    A sequence's share of a step falls with their number, since all read the model's weights together; what a row takes
    does not, until there are so many that the products and not the weights take the time. Seen with the embedded model
    in float32, one thread, 100 to 400 tokens of context, up to 32 sequences.
    """
    return 0.05, 0.5 - 0.32 / num_sequences + num_sequences / 512
