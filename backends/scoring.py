"""Which tokens of a text are judged when it is scored after a prompt, whatever scores them."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.errors import RequestError
from ..runtime.request import Scored, TokenLogprob


def first_judged(prompt_ids: Sequence[int], whole_ids: Sequence[int], text: str) -> int:
    """The index of the first token of prompt and text together that the prompt alone does not have.

    It is the number of tokens where the text adds none. Raises RequestError where nothing stands before that token.
    """
    start = _common_length(prompt_ids, whole_ids)
    if start == 0 and whole_ids:
        raise nothing_before(text)
    return start


def nothing_before(text: str) -> RequestError:
    """The error for a text that nothing can judge."""
    return RequestError(
        f"{text!r} cannot be scored: nothing stands before it, not even a beginning-of-text token",
        help="append some text first",
    )


def scored(text: str, tokens: tuple[TokenLogprob, ...], alone: tuple[TokenLogprob, ...] | None) -> Scored:
    """The score of a text. alone: its tokens judged without the prompt; a first one that nothing judges is left out."""
    if alone is None:
        return Scored(text, tokens)
    return Scored(text, tokens, (0.0,) * (len(tokens) - len(alone)) + tuple(token.logprob for token in alone))


def _common_length(left: Sequence[int], right: Sequence[int]) -> int:
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return index
    return min(len(left), len(right))
