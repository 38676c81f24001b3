"""Where the end of a growing run of tokens occurred before in it, and how it went on from there.

Places are found by a key of a few tokens, in one pass of numpy over all keys, which for some thousand tokens takes
microseconds and needs no memory but a number for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .radix import TokenArray

# So many equal tokens make a match; a key packs them into one number.
MATCHED = 3
# Of several matches the longest is taken, looked at so far back, among so many of the newest.
LONGEST = 16
CANDIDATES = 8
_BITS = 21
_OLDER = (1 << _BITS * (MATCHED - 1)) - 1


class RepeatIndex:
    """Where the end of a growing run of tokens occurred before.

    tokens: an array that holds the run at its beginning, and its room; what is added stands there already.
    """

    def __init__(self, tokens: TokenArray, num_tokens: int) -> None:
        self._tokens = tokens
        self._len = num_tokens
        self._keys = np.full(len(tokens), -1, dtype=np.int64)
        known = tokens[:num_tokens]
        if num_tokens >= MATCHED:
            keys = known[: num_tokens - MATCHED + 1].copy()
            for place in range(1, MATCHED):
                keys <<= _BITS
                keys |= known[place : num_tokens - MATCHED + 1 + place]
            self._keys[MATCHED - 1 : num_tokens] = keys
        self._key = _key(known[-MATCHED:].tolist())

    def advance(self, num_tokens: int) -> None:
        """Takes the tokens up to the first num_tokens of the array, no fewer than it has."""
        for token_id in self._tokens[self._len : num_tokens].tolist():
            self._key = (self._key & _OLDER) << _BITS | token_id
            if self._len >= MATCHED - 1:
                self._keys[self._len] = self._key
            self._len += 1

    def continuation(self, count: int) -> list[int]:
        """`count` tokens as they followed the longest of the newest matches of the end; none without a match.

        A match that the end overlaps with is a text that repeats itself: it goes on so.
        """
        end = self._len
        if end <= MATCHED:
            return []
        places = (self._keys[: end - 1] == self._key).nonzero()[0]
        if not len(places):
            return []
        follows = int(self._longest(places[-CANDIDATES:])) + 1
        found: list[int] = np.resize(self._tokens[follows : min(follows + count, end)], count).tolist()
        return found

    def _longest(self, places: TokenArray) -> int:
        """Which of the places ends the longest match, the newest of several."""
        if len(places) == 1:
            return int(places[0])
        back = np.arange(min(LONGEST, self._len))
        before = places[:, None] - back
        equal = (self._tokens[before] == self._tokens[self._len - 1 - back]) & (before >= 0)
        lengths = np.logical_and.accumulate(equal, axis=1).sum(axis=1)
        return int(places[len(places) - 1 - int(lengths[::-1].argmax())])


def _key(token_ids: Sequence[int]) -> int:
    key = 0
    for token_id in token_ids:
        key = key << _BITS | token_id
    return key
