"""How many tokens a request has used, as OpenAI's API tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...runtime.request import Done


class Counting:
    """Adds up what a request's generations have used. A prompt counts once, however many samples follow it."""

    def __init__(self, prompt_lens: Sequence[int]) -> None:
        self.prompt_tokens = sum(prompt_lens)
        self.generated_tokens = 0
        self._cached: dict[int, int] = {}

    @property
    def cached_tokens(self) -> int:
        """How many of the prompts' tokens came from the cache."""
        return sum(self._cached.values())

    def count(self, number: int, done: Done) -> None:
        """Add a generation of prompt `number` that has ended. What its first sample computed, the others find."""
        self.generated_tokens += done.generated_tokens
        self._cached[number] = min(done.cached_tokens, self._cached.get(number, done.cached_tokens))

    def usage(self) -> dict[str, Any]:
        """The `usage` of an answer."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.generated_tokens,
            "total_tokens": self.prompt_tokens + self.generated_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }
