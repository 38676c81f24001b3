"""How many tokens of prompts go into a step that also decodes, so that it does not take too long.

A step's time is modelled as what its decoding takes alone, by how many tokens that is, and so much for each token of
prompts besides; both are medians of the last measured steps. Sarathi-Serve (arXiv 2403.02310, section 4.3) profiles a
budget ahead for each machine; here it follows the load. The model is a function of the times it was told, nothing else.
"""

from __future__ import annotations

from collections import deque
from statistics import median

# A chunk has at least so many tokens, below which a step's fixed costs are most of it, and is a multiple of these.
LEAST_TOKENS = 32
_STEP = 16
# So many measurements count.
_NUM_MEASURED = 9


class Pace:
    """What steps take, and how much prefill a step with decoding bears. Not thread-safe.

    target_seconds: what such a step may take. One whose decoding alone takes more than half of that may take twice as
    long as this, since prompts have to go on too. None: no bound.
    """

    def __init__(self, target_seconds: float | None) -> None:
        self._target = target_seconds
        self._decode: dict[int, _Measured] = {}
        self._per_token = _Measured()
        self._alone = _Measured()

    def note(self, num_decoding: int, num_prefilled: int, seconds: float) -> None:
        """A step of so many decoded tokens and tokens of prompts took so long."""
        if not num_prefilled:
            self._decode.setdefault(num_decoding.bit_length(), _Measured()).add(seconds)
        elif not num_decoding:
            self._alone.add(seconds / num_prefilled)
        elif (decode := self._decode_seconds(num_decoding)) is not None and num_prefilled >= _STEP:
            self._per_token.add(max(seconds - decode, 0.0) / num_prefilled)

    def prefill_tokens(self, num_decoding: int, most: int) -> int:
        """How many tokens of prompts a step with so many decoded ones should have, of `most`."""
        per_token = self._per_token.median or self._alone.median
        decode = self._decode_seconds(num_decoding) if num_decoding else None
        if self._target is None or decode is None or not per_token:
            return most
        affordable = max(self._target - decode, decode) / per_token
        return most if affordable >= most else min(most, max(LEAST_TOKENS, int(affordable) // _STEP * _STEP))

    def _decode_seconds(self, num_decoding: int) -> float | None:
        """What that takes alone, or as many as are nearest to it; None when nothing was measured."""
        size = num_decoding.bit_length()
        nearest = min(self._decode, key=lambda known: (abs(known - size), known), default=None)
        return None if nearest is None else self._decode[nearest].median


class _Measured:
    """The median of the last measurements, 0 before there are any."""

    __slots__ = ("_values", "median")

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=_NUM_MEASURED)
        self.median = 0.0

    def add(self, value: float) -> None:
        self._values.append(value)
        self.median = median(self._values)
