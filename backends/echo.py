"""Scores from text completions that echo their prompt: the request, and what its answer says of each text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..runtime.request import Done, Scored, TokenLogprob
from .remote import Trouble
from .scoring import first_judged
from .wire import Answer, Choice

_ID = "token_id:"


def echo_fields(prompt: str, texts: Sequence[str]) -> dict[str, Any]:
    """What asks for the tokens of a prompt, alone and with each text after it, and generates nothing."""
    prompts = [prompt + text for text in ("", *texts)]
    return {"prompt": prompts, "echo": True, "logprobs": 1, "max_tokens": 0, "temperature": 0.0}


def echoed_scores(answer: Answer, prompt: str, texts: Sequence[str]) -> Done:
    """The scores that an answer to `echo_fields` holds. Raises Trouble if it is none, and RequestError."""
    answer.check()
    choices = sorted(answer.choices, key=lambda choice: choice.index)
    sent = [prompt + text for text in ("", *texts)]
    if [choice.text for choice in choices] != sent:
        raise Trouble("the server did not echo the prompts, so it cannot score texts")
    names: dict[str, int] = {}
    alone, *wholes = [_tokens(choice, names) for choice in choices]
    prompt_ids = [token_id for token_id, _ in alone]
    usage = answer.usage
    return Done(
        "",
        (),
        "stop",
        scores=tuple(_scored(text, prompt_ids, whole) for text, whole in zip(texts, wholes, strict=True)),
        prompt_tokens=(usage.prompt_tokens if usage is not None else None) or 0,
        cached_tokens=usage.num_cached if usage is not None else 0,
    )


def _tokens(choice: Choice, names: dict[str, int]) -> list[tuple[int, float | None]]:
    """Each token's id and log-probability. Tokens that are told by their text get negative ids that tell them apart."""
    logprobs = choice.logprobs
    if logprobs is None or not logprobs.tokens or logprobs.token_logprobs is None:
        raise Trouble("the server echoes prompts without their log-probabilities, so it cannot score texts")
    ids = (
        int(name.removeprefix(_ID)) if name.startswith(_ID) else names.setdefault(name, -2 - len(names))
        for name in logprobs.tokens
    )
    return list(zip(ids, logprobs.token_logprobs, strict=True))


def _scored(text: str, prompt_ids: list[int], whole: list[tuple[int, float | None]]) -> Scored:
    start = first_judged(prompt_ids, [token_id for token_id, _ in whole], text)
    tokens = [TokenLogprob(token_id, value) for token_id, value in whole[start:] if value is not None]
    if len(tokens) != len(whole) - start:
        raise Trouble(f"the server tells no log-probability for some tokens of {text!r}")
    return Scored(text, tuple(tokens))
