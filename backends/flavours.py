"""What kinds of OpenAI-compatible servers take beyond OpenAI's own parameters: one table.

The extra fields are those that the servers document: vLLM's "extra parameters", SGLang's and llama.cpp's sampling
parameters. A sampling parameter without a field here is not among the backend's features, so it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from ..runtime.constraint import Constraint
from ..runtime.request import SamplingParams
from .native_tools import CallSchema
from .strict_schema import strict_schema

Fields = Mapping[str, Any]
Constraining = Callable[[str], Fields]

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
    it continue a last assistant message, or None if it cannot. max_stops: how many stop strings it takes. chat, text:
    the fields that make an answer match a constraint, by the gen's argument that asks for it, for each kind of model.
    tool_role: whether it takes messages of the role "tool" by themselves, without its own interface for tools.
    has_tools: whether it is known to have that interface; others may have been started with it. call_schema: how a
    tool's schema is written for a server that holds calls to those which are marked as strict, or None. choice:
    the fields that make an answer one of some texts, or None. echoes_logprobs: whether it tells the
    log-probabilities of a text model's prompt. tokens_as_ids: the fields that make it name tokens by their ids.
    holds_stops_back: whether a stream never shows the beginning of what turns out to be a stop string. tells_tokens:
    whether it tells the tokens of an answer, with their log-probabilities, whatever the model. takes_images: whether
    messages may have images, which a model may or may not see. no_top_k: what it takes for a top_k that is off.
    least_tops: how many of the likeliest tokens have to be asked for where the chosen one's log-probability is wanted.
    """

    name: str
    fields: Mapping[str, str]
    unsaid: Mapping[str, Any] = field(default_factory=lambda: _UNSAID)
    max_tokens: str = "max_tokens"
    continues: Fields | None = None
    max_stops: int | None = None
    chat: Mapping[str, Constraining] = field(default_factory=lambda: {"json_schema": _response_format})
    text: Mapping[str, Constraining] = field(default_factory=dict)
    choice: Callable[[Sequence[str]], Fields] | None = None
    echoes_logprobs: bool = False
    tokens_as_ids: Fields = field(default_factory=dict)
    tool_role: bool = True
    has_tools: bool = False
    call_schema: CallSchema | None = None
    holds_stops_back: bool = True
    tells_tokens: bool = False
    takes_images: bool = True
    no_top_k: int = -1
    least_tops: int = 0

    def features(self, *, is_chat: bool) -> frozenset[str]:
        """The features of runtime/features.py that its fields make."""
        sampling = (_FEATURES.get(name, name) for name in self.fields if name not in _NO_FEATURE)
        constraints = self.chat if is_chat else self.text
        typed = ("dtype",) if "regex" in constraints else ()  # numbers are asked for by their form
        return frozenset((*sampling, "logprobs", *constraints, *typed))

    def constraint(self, constraint: Constraint, *, is_chat: bool) -> Fields:
        """The fields of a request that make its answer match."""
        return (self.chat if is_chat else self.text)[constraint.label](constraint.source)

    def sampling(self, params: SamplingParams) -> dict[str, Any]:
        """The fields of a request that say how to sample."""
        body: dict[str, Any] = {}
        for name, target in self.fields.items():
            value = getattr(params, name)
            if name not in self.unsaid or value != self.unsaid[name]:
                body[target] = _same(value) if value or name != "top_k" else self.no_top_k
        return body


def _same(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _response_format(schema: str) -> Fields:
    """OpenAI's way. `strict` asks for the guarantee; a schema for which a server cannot give it is an error there."""
    described = {"name": "answer", "schema": msgspec.json.decode(schema), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def _json_object(schema: str) -> Fields:
    """llama-cpp-python's way."""
    return {"response_format": {"type": "json_object", "schema": msgspec.json.decode(schema)}}


def _strict_format(schema: str) -> Fields:
    """OpenAI's way on OpenAI's own servers, which take only some schemas."""
    described = {"name": "answer", "schema": strict_schema(schema), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def _structured(name: str) -> Constraining:
    """vLLM's way, for a regular expression or a grammar."""
    return lambda source: {"structured_outputs": {name: source}}


def _structured_choice(texts: Sequence[str]) -> Fields:
    return {"structured_outputs": {"choice": list(texts)}}


def literal(text: str) -> str:
    """A regular expression that matches this text alone, in every dialect."""
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)


def _gbnf_choice(texts: Sequence[str]) -> Fields:
    """llama.cpp's way: a grammar of quoted texts, whose escapes are those of JSON."""
    return {"grammar": "root ::= " + " | ".join(msgspec.json.encode(text).decode() for text in texts)}


_JSON_ONLY: dict[str, Constraining] = {"json_schema": _response_format}
_VLLM: dict[str, Constraining] = {
    "regex": _structured("regex"),
    "json_schema": lambda schema: {"structured_outputs": {"json": msgspec.json.decode(schema)}},
    "grammar": _structured("grammar"),
}
_SGLANG: dict[str, Constraining] = {"regex": lambda regex: {"regex": regex}}

_VLLM_SERVER = Flavour(
    "vllm",
    _OPEN,
    continues={"continue_final_message": True, "add_generation_prompt": False},
    call_schema=msgspec.json.decode,
    chat=_VLLM,
    text=_VLLM,
    choice=_structured_choice,
    echoes_logprobs=True,
    tells_tokens=True,
    tokens_as_ids={"return_tokens_as_token_ids": True},
)

FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour(
            "openai",
            _BASIC,
            {**_UNSAID, "temperature": 1.0, "top_p": 1.0},
            max_tokens="max_completion_tokens",
            max_stops=4,
            tool_role=False,
            has_tools=True,
            call_schema=strict_schema,
            chat={"json_schema": _strict_format},
        ),
        Flavour("compatible", _BASIC),
        _VLLM_SERVER,
        Flavour(
            "sglang",
            _OPEN,
            continues={"continue_final_message": True},
            chat={**_JSON_ONLY, **_SGLANG},
            text={**_SGLANG, "json_schema": lambda schema: {"json_schema": schema}},
            holds_stops_back=False,
            tells_tokens=True,
            choice=lambda texts: {"regex": "|".join(f"({literal(text)})" for text in texts)},
        ),
        replace(
            _VLLM_SERVER,
            name="ramify",
            continues={"continue_final_message": True},
            call_schema=None,
            has_tools=True,
            takes_images=False,
        ),
        Flavour(
            "llama.cpp",
            _LLAMA_CPP,
            # A whole answer begins with the message that it continues; a stream does not.
            continues={"stream": True, "stream_options": {"include_usage": True}},
            no_top_k=0,
            least_tops=1,
            text={"json_schema": lambda schema: {"json_schema": msgspec.json.decode(schema)}},
            choice=_gbnf_choice,
        ),
        Flavour(
            "llama-cpp-python",
            {name: target for name, target in _LLAMA_CPP.items() if name != "ignore_eos"},
            no_top_k=0,
            least_tops=1,
            chat={"json_schema": _json_object},
            choice=_gbnf_choice,
            tool_role=False,
        ),
    )
}
