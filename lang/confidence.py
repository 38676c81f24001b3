"""How sure the model was of a text: token-level confidence, aggregated over a span (arXiv 2305.07021, section 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..ir.errors import UsageError
from ..runtime.meta import Told
from .run import Run
from .state import State

Aggregate = Callable[[list[float]], float]
_AGGREGATES: dict[str, Aggregate] = {
    "min": min,
    "mean": lambda probabilities: math.fsum(probabilities) / len(probabilities),
    "product": math.prod,
}
# What stands in a token's text for bytes that are no character by themselves.
_BROKEN = "\N{REPLACEMENT CHARACTER}"


def confidence(
    s: State | Run, name: str, how: str | Aggregate = "min", span: str | tuple[int, int] | None = None
) -> Any:
    """The probabilities that the model gave the tokens of a variable, as one number; waits for it.

    how: "min", "mean", "product", or a function of the list of probabilities. span: only the tokens with characters in
    a part of the text (its first occurrence, or a range of characters); None is all of it. A gen of several samples
    gives a list, as does a score of several texts. Raises UsageError where probabilities (`gen(logprobs=0)`) or, for
    a span, the tokens' texts (`return_text_in_logprobs=True`) were not asked for, and for what is no span.
    """
    aggregate = _AGGREGATES.get(how) if isinstance(how, str) else how
    if not callable(aggregate):
        raise UsageError(f"unknown aggregation {how!r}; known: {', '.join(_AGGREGATES)}, or a function")
    info = s.get_meta_info(name)
    if isinstance(info, list):
        return [aggregate(_probabilities(name, each, span)) for each in info]
    if "token_counts" not in info:
        return aggregate(_probabilities(name, info, span))
    if span is not None:
        raise UsageError("a score has no span of a text", help="score the part itself: rf.score(name, part)")
    found = [aggregate([math.exp(told[0]) for told in tokens]) for tokens in info["input_token_logprobs"]]
    return found if isinstance(s[name], list) else found[0]


def _probabilities(name: str, info: Mapping[str, Any], span: str | tuple[int, int] | None) -> list[float]:
    """What the model gave each of a generation's tokens that count."""
    told: list[Told] = info["output_token_logprobs"]
    if not told:
        advice = "ask for them: rf.gen(..., logprobs=0)"
        if not info["text"]:
            advice = "its text is empty: look at that first, or ask for min_tokens=1"
        raise UsageError(f"there are no probabilities of the tokens of {name!r}", help=advice)
    probabilities = [math.exp(logprob) for logprob, _, _ in told]
    if span is None:
        return probabilities
    start, stop = _range(name, info["text"], span)
    ranges = _ranges(name, info["text"], [text for _, _, text in told])
    return [each for each, (begin, end) in zip(probabilities, ranges, strict=True) if begin < stop and start < end]


def _range(name: str, text: str, span: str | tuple[int, int]) -> tuple[int, int]:
    if isinstance(span, str):
        start, stop = text.find(span), text.find(span) + len(span)
    elif isinstance(span, tuple) and [type(place) for place in span] == [int, int]:
        start, stop = span
    else:
        raise UsageError(f"a span is a text, or a tuple of where it begins and ends in the text; got {span!r}")
    if not 0 <= start < stop <= len(text):
        raise UsageError(f"{span!r} is no span of {name!r}, whose text is {text!r}")
    return start, stop


def _ranges(name: str, text: str, pieces: list[str | None]) -> list[tuple[int, int]]:
    """Which characters of the text each token has a part in. Tokens that share a character have the same range."""
    ranges: list[tuple[int, int]] = []
    end = num_broken = 0
    for piece in pieces:
        if piece is None:
            advice = "ask for them: rf.gen(..., return_text_in_logprobs=True)"
            raise UsageError(f"the texts of the tokens of {name!r} are not known, so they have no span", help=advice)
        start = text.find(piece, end + bool(num_broken))
        if _BROKEN in piece or start < 0:
            num_broken += 1
            continue
        ranges += [(end, start)] * num_broken
        ranges.append((start, start + len(piece)))
        end, num_broken = start + len(piece), 0
    return ranges + [(end, len(text))] * num_broken
