"""What kinds of OpenAI-compatible servers take beyond OpenAI's own parameters: one table.

The extra fields are those that the servers document: vLLM's "extra parameters", SGLang's and llama.cpp's sampling
parameters. A sampling parameter without a field here is not among the backend's features, so it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..runtime.request import SamplingParams

_PENALTIES = {"frequency_penalty": "frequency_penalty", "presence_penalty": "presence_penalty"}
_BASIC = {"temperature": "temperature", "top_p": "top_p", "stop": "stop", "seed": "seed", **_PENALTIES}
_OPEN = {
    **_BASIC,
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "min_tokens": "min_tokens",
    "stop_token_ids": "stop_token_ids",
    "ignore_eos": "ignore_eos",
}
_LLAMA_CPP = {
    **_BASIC,
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
    "ignore_eos": "ignore_eos",
}
# What every server does where a field is missing. For the others a server may take a model's own defaults.
_UNSAID = {
    "stop": (),
    "seed": None,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "min_tokens": 0,
    "stop_token_ids": (),
    "ignore_eos": False,
}
# Features that bear another name than the sampling parameter that asks for them.
_FEATURES = {"stop_token_ids": "token_ids"}
_NO_FEATURE = frozenset(("temperature", "top_p", "stop"))


@dataclass(frozen=True, slots=True)
class Flavour:
    """One kind of server.

    fields: the request's field for each sampling parameter that it takes. unsaid: the values that are left out, because
    the server does the same by itself. max_tokens: the field that bounds a chat answer. continues: the fields that make
    it continue a last assistant message, or None if it cannot. max_stops: how many stop strings it takes.
    """

    name: str
    fields: Mapping[str, str]
    unsaid: Mapping[str, Any] = field(default_factory=lambda: _UNSAID)
    max_tokens: str = "max_tokens"
    continues: Mapping[str, Any] | None = None
    max_stops: int | None = None

    @property
    def features(self) -> frozenset[str]:
        """The features of runtime/features.py that its fields make."""
        return frozenset(_FEATURES.get(name, name) for name in self.fields if name not in _NO_FEATURE)

    def sampling(self, params: SamplingParams) -> dict[str, Any]:
        """The fields of a request that say how to sample."""
        body: dict[str, Any] = {}
        for name, target in self.fields.items():
            value = getattr(params, name)
            if name not in self.unsaid or value != self.unsaid[name]:
                body[target] = _PLAIN.get(name, _same)(value)
        return body


def _same(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


# 0 is "off" for us and 1 token for some of them; -1 is "off" for all.
_PLAIN = {"top_k": lambda value: value or -1}

FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour(
            "openai",
            _BASIC,
            {**_UNSAID, "temperature": 1.0, "top_p": 1.0},
            max_tokens="max_completion_tokens",
            max_stops=4,
        ),
        Flavour("compatible", _BASIC),
        Flavour("vllm", _OPEN, continues={"continue_final_message": True, "add_generation_prompt": False}),
        Flavour("sglang", _OPEN, continues={"continue_final_message": True}),
        Flavour("llama.cpp", _LLAMA_CPP, continues={}),
    )
}
