"""Log-probabilities as OpenAI's two endpoints tell them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...runtime.request import TokenLogprob
from ...runtime.tokens import Tokenizer

# What OpenAI's API says of a token that cannot come; JSON has no infinities.
_LEAST = -9999.0


class Names:
    """How tokens are called. by_id: "token_id:5" for that token, which unlike its text names no other."""

    def __init__(self, tokenizer: Tokenizer, *, by_id: bool) -> None:
        self._tokenizer = tokenizer
        self._by_id = by_id

    def __call__(self, token_id: int) -> str:
        return f"token_id:{token_id}" if self._by_id else self._tokenizer.token_text(token_id)

    def bytes(self, token_id: int) -> list[int]:
        """The bytes of a token's text."""
        return list(self._tokenizer.token_bytes(token_id))


def chat_logprobs(logprobs: Iterable[TokenLogprob], names: Names) -> dict[str, Any]:
    """Those of a chat answer, or of a piece of one."""
    return {"content": [_chat_logprob(each, names) for each in logprobs], "refusal": None}


def _chat_logprob(logprob: TokenLogprob, names: Names) -> dict[str, Any]:
    top = [_named(token_id, value, names) for token_id, value in logprob.top]
    return _named(logprob.token_id, logprob.logprob, names) | {"top_logprobs": top}


def _named(token_id: int, value: float, names: Names) -> dict[str, Any]:
    return {"token": names(token_id), "logprob": max(value, _LEAST), "bytes": names.bytes(token_id)}


def text_logprobs(
    token_ids: Sequence[int], logprobs: Sequence[TokenLogprob | None], num_top: int, offset: int, names: Names
) -> tuple[dict[str, Any], int]:
    """Those of a text answer, or of a piece of one that begins at character `offset`; and the offset behind it.

    logprobs: one for each token; None for one that has none, as a prompt's first.
    """
    told: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for token_id, logprob in zip(token_ids, logprobs, strict=True):
        told["tokens"].append(names(token_id))
        told["text_offset"].append(offset)
        told["token_logprobs"].append(None if logprob is None else max(logprob.logprob, _LEAST))
        told["top_logprobs"].append(_top(logprob, names) if logprob is not None and num_top else None)
        offset += len(bytes(names.bytes(token_id)).decode("utf-8", "ignore"))
    if not num_top:
        told["top_logprobs"] = None
    return told, offset


def _top(logprob: TokenLogprob, names: Names) -> dict[str, float]:
    """The likeliest tokens and the one that came; of several that are called the same, the likeliest."""
    found: dict[str, float] = {}
    for token_id, value in (*logprob.top, (logprob.token_id, logprob.logprob)):
        found.setdefault(names(token_id), max(value, _LEAST))
    return found
