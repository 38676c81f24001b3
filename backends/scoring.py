"""Which tokens of a text are judged when it is scored after a prompt, whatever scores them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from ..ir.errors import RequestError
from ..runtime.request import Scored, TokenLogprob

if TYPE_CHECKING:
    from ..runtime.prompt_tokens import KnownTokens


def first_judged(prompt_ids: Sequence[int], whole_ids: Sequence[int], text: str) -> int:
    """The index of the first token of prompt and text together that the prompt alone does not have.

    It is the number of tokens where the text adds none. Raises RequestError where nothing stands before that token.
    """
    start = _common_length(prompt_ids, whole_ids)
    if start == 0 and whole_ids:
        raise nothing_before(text)
    return start


def to_judge(known: KnownTokens, text: str, unconditional: bool) -> list[tuple[Hashable, list[int], list[int]]]:
    """The tokens to judge of a text after a prompt, and (if asked for) those without it: each with what stands before
    them and a key for that. There are none where the text adds none. Raises RequestError as `first_judged` does."""
    whole = known.with_text(text)
    start = first_judged(known.token_ids, whole, text)
    if start == len(whole):
        return []
    found: list[tuple[Hashable, list[int], list[int]]] = [(start, whole[:start], whole[start:])]
    alone = [*known.owner.first_ids, *whole[start:]]
    if unconditional and len(alone) > 1:
        found.append((("alone", alone[0]), alone[:1], alone[1:]))
    return found


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
