"""What a backend can do, by name, and the refusal of what it cannot.

A request is checked where it is appended, before anything is sent, eagerly and compiled alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from ..ir.errors import Unsupported
from .backend import Backend
from .choices import token_length_normalized
from .expression import Call, Select, Where, span_of
from .request import SamplingParams

# Every feature, and what asks for it. Generating text with max_tokens, temperature, top_p and stop needs none.
FEATURES = {
    "select": "select()",
    "score": "score() and choice methods",
    "embed": "embed(), which asks for hidden states",
    "images": "images",
    "videos": "videos",
    "logprobs": "logprobs",
    "prompt_logprobs": "logprob_start_len",
    "stop_regex": "stop_regex",
    "seed": "a seed",
    "token_ids": "stop_token_ids",
    "min_tokens": "min_tokens",
    "ignore_eos": "ignore_eos",
    "top_k": "top_k",
    "min_p": "min_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": "repetition_penalty",
    "regex": "regex",
    "json_schema": "json_schema",
    "grammar": "grammar",
    "tools": "calls of tools in a form of its own",
    "processors": "processors",
    "adapter": "adapter (LoRA)",
    "dtype": "dtype, so that the text always stands for a value",
}
# The features of sampling that every server of open models has.
SAMPLING = frozenset(
    (
        "logprobs", "seed", "token_ids", "min_tokens", "ignore_eos", "top_k", "min_p",
        "frequency_penalty", "presence_penalty", "repetition_penalty",
    )
)  # fmt: skip
# Those of a backend that makes the tokens, or the words, itself.
OWN = SAMPLING | {"select", "score", "prompt_logprobs", "stop_regex", "regex", "json_schema", "grammar"}

# Sampling parameters that ask for a feature as soon as they are not the default. The others need none, or have a rule.
_BY_PARAMETER = {f.name: f.name for f in fields(SamplingParams) if f.name in FEATURES and f.name != "seed"} | {
    "stop_token_ids": "token_ids",
    "logprob_start_len": "prompt_logprobs",
}
_DEFAULTS = SamplingParams()


def require(backend: Backend, expression: Call, params: SamplingParams | None, where: Where) -> None:
    """Raises Unsupported, which points at `where`, unless the backend can serve an expression and has its adapter."""
    for feature in needs(expression, params):
        require_feature(backend, feature, where)
    adapters = getattr(backend, "adapters", None)
    if params is not None and params.adapter is not None and adapters is not None and params.adapter not in adapters:
        raise Unsupported(
            f"the backend {backend.name!r} has no adapter {params.adapter!r}; it has {', '.join(adapters) or 'none'}",
            span=span_of(where),
            help="adapters are loaded with the model: --adapter NAME=DIR, or LocalBackend(..., adapters={name: DIR})",
        )


def require_feature(backend: Backend, feature: str, where: Where) -> None:
    """Raises Unsupported unless the backend has a feature."""
    if feature in backend.features:
        return
    raise Unsupported(
        f"the backend {backend.name!r} cannot take {FEATURES[feature]}",
        span=span_of(where),
        help=getattr(backend, "reasons", {}).get(feature)
        or f"leave it out, or run on a backend that has the feature {feature!r}",
    )


def needs(expression: Call, params: SamplingParams | None) -> Iterator[str]:
    """The features that a backend must have for an expression; params: of a gen."""
    if params is None:
        yield expression.kind
        if isinstance(expression, Select) and expression.method is not token_length_normalized:
            yield "score"
        return
    for parameter, feature in _BY_PARAMETER.items():
        if _differs(getattr(params, parameter), getattr(_DEFAULTS, parameter)):
            yield feature
    if params.constraint is not None:
        yield params.constraint.label
    if params.seed is not None and params.temperature > 0:  # greedy decoding draws nothing
        yield "seed"


def _differs(value: Any, default: Any) -> bool:
    return value is not default and bool(value != default)
