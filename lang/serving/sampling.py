"""The fields of a request as sampling parameters and a constraint. What cannot be honoured is refused by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...backends.flavours import literal
from ...ir.errors import RamifyError
from ...runtime.constraint import Constraint, json_schema_constraint, regex_constraint
from ...runtime.request import Processor, SamplingParams
from .errors import in_words, invalid
from .fields import Generating

MOST_SAMPLES = 128
MOST_LOGPROBS = 20
_SAME_NAME = (
    "temperature",
    "top_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "top_k",
    "min_p",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
    "close",
)
# OpenAI's API samples where nothing is said.
_DEFAULTS = SamplingParams(temperature=1.0)


def sampling_params(fields: Generating, vocab_size: int) -> SamplingParams:
    """How to sample, but for max_tokens and logprobs, which the endpoints have in different fields.

    Raises ApiError for what is out of range or cannot be honoured.
    """
    given = {name: value for name in _SAME_NAME if (value := getattr(fields, name)) is not None}
    if given.get("top_k") == -1:  # "all", for vLLM and SGLang
        given["top_k"] = 0
    params = replace(
        _DEFAULTS,
        **given,
        stop=_texts(fields.stop),
        stop_token_ids=tuple(fields.stop_token_ids or ()),
        constraint=constraint_of(fields),
        processors=_bias(fields.logit_bias, vocab_size),
    )
    if params.close and params.constraint is None:
        raise invalid("close takes a constraint: response_format, structured_outputs or a guided_ field", "close")
    return params


def num_samples(fields: Generating) -> int:
    """How many samples are asked for. Raises ApiError."""
    n = 1 if fields.n is None else fields.n
    if not 1 <= n <= MOST_SAMPLES:
        raise invalid(f"n must be between 1 and {MOST_SAMPLES}, got {n}", "n")
    return n


def check_logprobs(num: int | None, name: str) -> int | None:
    """How many alternatives are to be told of. Raises ApiError."""
    if num is not None and not 0 <= num <= MOST_LOGPROBS:
        raise invalid(f"{name} must be between 0 and {MOST_LOGPROBS}, got {num}", name)
    return num


def _texts(value: str | list[str] | None) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value or ())
    if "" in texts:
        raise invalid("stop has an empty text", "stop")
    return texts


def _bias(given: Mapping[str, float] | None, vocab_size: int) -> tuple[Processor, ...]:
    """What adds OpenAI's `logit_bias` to the logits."""
    if not given:
        return ()
    import torch

    for name, value in given.items():
        if not name.isdecimal() or int(name) >= vocab_size:
            raise invalid(f"logit_bias has {name!r}, which is no token id below {vocab_size}", "logit_bias")
        if not -100 <= value <= 100:
            raise invalid(f"logit_bias of {name} must be between -100 and 100, got {value}", "logit_bias")
    token_ids = torch.tensor([int(name) for name in given])
    values = torch.tensor(list(given.values()), dtype=torch.float32)

    def add_bias(_: Any, logits: Any) -> None:
        logits.index_add_(0, token_ids.to(logits.device), values.to(logits.device))

    return (add_bias,)


def constraint_of(fields: Generating) -> Constraint | None:
    """What the text has to match, however that is said. Raises ApiError for two ways at once, and what is none."""
    ways = [way for way in _ways(fields) if way[1] is not None]
    if len(ways) > 1:
        raise invalid(f"{ways[0][0]} and {ways[1][0]} both say what the text must match", ways[1][0])
    for name, value, make in ways:
        try:
            constraint = make(value)
            if constraint is not None:
                constraint.check()
            return constraint
        except (RamifyError, TypeError, ValueError) as error:
            raise invalid(f"{name}: {in_words(error)}", name) from None
    return None


_Way = tuple[str, Any, Callable[[Any], "Constraint | None"]]


def _ways(fields: Generating) -> list[_Way]:
    structured = fields.structured_outputs
    ways: list[_Way] = [
        ("response_format", fields.response_format, _of_format),
        ("guided_regex", fields.guided_regex, regex_constraint),
        ("regex", fields.regex, regex_constraint),
        ("guided_choice", fields.guided_choice, one_of),
        ("guided_grammar", fields.guided_grammar, _lark),
        ("guided_json", fields.guided_json, json_schema_constraint),
        ("json_schema", fields.json_schema, json_schema_constraint),
    ]
    if structured is not None:
        ways += [
            ("structured_outputs.json", structured.json, json_schema_constraint),
            ("structured_outputs.regex", structured.regex, regex_constraint),
            ("structured_outputs.choice", structured.choice, one_of),
            ("structured_outputs.grammar", structured.grammar, _lark),
            ("structured_outputs.json_object", structured.json_object or None, _any_object),
        ]
    return ways


def _lark(grammar: str) -> Constraint:
    """A grammar by its text: never a file of the server's, which `gen(grammar=)` would read."""
    return Constraint("lark", grammar)


def _any_object(_: Any) -> Constraint:
    return json_schema_constraint({"type": "object"})


def one_of(texts: Sequence[str]) -> Constraint:
    """One of some texts. Raises ValueError for none, and for an empty one."""
    if not texts or "" in texts:
        raise ValueError("it takes at least one choice, and no empty ones")
    return regex_constraint("|".join(f"({literal(text)})" for text in texts))


def _of_format(given: Mapping[str, Any]) -> Constraint | None:
    """OpenAI's `response_format`. Its "strict" need not be said: a schema is enforced, or refused."""
    match given:
        case {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return _any_object(None)
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return json_schema_constraint(schema)
        case {"type": "json_schema"}:
            raise ValueError('it takes "json_schema": {"name": ..., "schema": {...}}')
    raise ValueError('its type is "text", "json_object" or "json_schema"')
