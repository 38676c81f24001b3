"""Limits of a server on requests and tokens a minute, kept from this side.

In no 60 seconds are more requests sent, or tokens used, than allowed. What a request will use is guessed when it is
sent, as its prompt's length and its max_tokens, and corrected by what the server tells with the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from ..ir.errors import UsageError

_MINUTE = 60.0


class Sent:
    """A request that was sent: when, and how many tokens it counts for."""

    __slots__ = ("at", "tokens")

    def __init__(self, at: float, tokens: int) -> None:
        self.at = at
        self.tokens = tokens


class Rates:
    """The requests of the last minute. None: no limit. Raises UsageError for a limit below 1."""

    def __init__(self, requests: int | None, tokens: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        for name, value in (("requests_per_minute", requests), ("tokens_per_minute", tokens)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"{name} is a whole number above 0, or None for no limit; got {value!r}")
        self._most_requests = requests
        self._most_tokens = tokens
        self._clock = clock
        self._sent: deque[Sent] = deque()
        self._used = 0
        self._closed_until = 0.0
        self._turn = asyncio.Lock()

    async def admit(self, tokens: int) -> Sent:
        """Wait until a request of about so many tokens may be sent, in order of arrival, and count it."""
        async with self._turn:
            while (seconds := self.wait(tokens)) > 0:
                await asyncio.sleep(seconds)
            return self.take(tokens)

    def forked(self) -> None:
        """Those who wait are another process's."""
        self._turn = asyncio.Lock()

    def wait(self, tokens: int) -> float:
        """The seconds until a request of so many tokens may be sent; one above the limit goes when nothing counts."""
        now = self._clock()
        while self._sent and self._sent[0].at <= now - _MINUTE:
            self._used -= self._sent.popleft().tokens
        return max(self._closed_until - now, self._until_room(tokens, now), 0.0)

    def _until_room(self, tokens: int, now: float) -> float:
        num_left, used = len(self._sent), self._used
        seconds = 0.0
        for sent in self._sent:
            has_turns = self._most_requests is None or num_left < self._most_requests
            if has_turns and (self._most_tokens is None or used + tokens <= self._most_tokens):
                break
            num_left, used = num_left - 1, used - sent.tokens
            seconds = sent.at + _MINUTE - now
        return seconds

    def take(self, tokens: int) -> Sent:
        """Count a request that is sent now."""
        sent = Sent(self._clock(), tokens)
        if self._most_requests is not None or self._most_tokens is not None:
            self._sent.append(sent)
            self._used += tokens
        return sent

    def correct(self, sent: Sent, tokens: int) -> None:
        """A request has used so many tokens; nothing changes where the server tells none."""
        if tokens and self._sent and sent.at >= self._sent[0].at:
            self._used += tokens - sent.tokens
            sent.tokens = tokens

    def hold(self, seconds: float) -> None:
        """The server asks for a pause: nobody sends anything in it."""
        self._closed_until = max(self._closed_until, self._clock() + seconds)
