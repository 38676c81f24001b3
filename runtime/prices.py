"""What tokens cost where a model is paid for by the token."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.errors import UsageError
from .request import Done

_UNIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices per million tokens, in the currency of your choice: of the prompt, of what is generated, and of the part
    of the prompt that comes from the server's cache (None: no discount). cache_writes: of what the server is asked to
    keep (None: as the prompt). Raises UsageError for what is no price.
    """

    prompt: float
    generated: float
    cached: float | None = None
    cache_writes: float | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "generated", "cached", "cache_writes"):
            value = getattr(self, name)
            optional = name.startswith("cache") and value is None
            if not optional and not (isinstance(value, int | float) and 0 <= value < float("inf")):
                raise UsageError(f"the price {name} is a number per million tokens, not {value!r}")

    def cost(self, done: Done) -> float:
        """What a finished request has cost."""
        cached = self.prompt if self.cached is None else self.cached
        written = self.prompt if self.cache_writes is None else self.cache_writes
        plain = done.prompt_tokens - done.cached_tokens - done.cache_write_tokens
        parts = (
            plain * self.prompt,
            done.cached_tokens * cached,
            done.cache_write_tokens * written,
            done.generated_tokens * self.generated,
        )
        return sum(parts) / _UNIT


def checked(prices: Prices | None) -> Prices | None:
    """What was given as prices. Raises UsageError for something else."""
    if prices is not None and not isinstance(prices, Prices):
        help = "give prices=rf.Prices(prompt=..., generated=...)"
        raise UsageError(f"prices are an rf.Prices, not {prices!r:.60}", help=help)
    return prices
