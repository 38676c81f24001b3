"""What `get_meta_info` tells of a finished request: its costs, its end, and log-probabilities as SGLang tells them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .expression import Call, Gen
from .request import Done, Scored, TokenLogprob

# Log-probability, token id, and the token's text where it was asked for.
Told = tuple[float, int, str | None]


def meta_info(expression: Call, done: Done) -> dict[str, Any]:
    """Everything that is known of a request. Times in milliseconds."""
    info: dict[str, Any] = {
        "text": done.text,
        "prompt_tokens": done.prompt_tokens,
        "cached_tokens": done.cached_tokens,
        "completion_tokens": done.generated_tokens,
        "finish_reason": done.finish_reason,
        "matched": done.matched,
        "closing": done.closing,
        "token_ids": list(done.token_ids),
        "queue_ms": done.queue_ms,
        "wall_ms": done.wall_ms,
    }
    return info | (_of_gen(done) if isinstance(expression, Gen) else _of_scores(done.scores))


def _of_gen(done: Done) -> dict[str, Any]:
    return {
        "logprobs": list(done.logprobs),
        "output_token_logprobs": told(done.logprobs),
        "output_top_logprobs": [top_told(token) for token in done.logprobs],
        "input_token_logprobs": told(done.prompt_logprobs),
        "input_top_logprobs": [top_told(token) for token in done.prompt_logprobs],
    }


def _of_scores(scores: tuple[Scored, ...]) -> dict[str, Any]:
    """Of each text, in order; `scores` has the means by the texts themselves."""
    info: dict[str, Any] = {
        "scores": {scored.text: scored.mean for scored in scores},
        "token_counts": [len(scored.tokens) for scored in scores],
        "normalized_prompt_logprobs": [scored.mean for scored in scores],
        "input_token_logprobs": [told(scored.tokens) for scored in scores],
    }
    if any(scored.unconditional is not None for scored in scores):
        info["unconditional_logprobs"] = [list(scored.unconditional or ()) for scored in scores]
        info["normalized_unconditional_prompt_logprobs"] = [scored.mean_gain for scored in scores]
    return info


def told(tokens: Iterable[TokenLogprob]) -> list[Told]:
    """Tokens' log-probabilities as SGLang tells them."""
    return [(token.logprob, token.token_id, token.text) for token in tokens]


def top_told(token: TokenLogprob) -> list[Told]:
    """The most likely alternatives of a token, likewise."""
    texts = token.top_texts or (None,) * len(token.top)
    return [(logprob, token_id, text) for (token_id, logprob), text in zip(token.top, texts, strict=True)]
