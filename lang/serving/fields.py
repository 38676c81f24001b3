"""The bodies of requests, as records: OpenAI's fields, and those beyond them that vLLM's and SGLang's servers take.

A field that is in no record is refused. So is one that is here only to be refused unless it says what is done anyway.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool = False
    include_obfuscation: bool = False


class Structured(msgspec.Struct, forbid_unknown_fields=True):
    """vLLM's `structured_outputs`: one of these."""

    json: Any = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class Function(msgspec.Struct, forbid_unknown_fields=True):
    """A function that may be called. `strict` need not be said: arguments match their schema in any case."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: Function


class Generating(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What both endpoints take that generate. `user`, `metadata` and the like are labels, and change nothing."""

    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    # Beyond OpenAI's.
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    close: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: Structured | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    guided_json: Any = None
    regex: str | None = None
    json_schema: Any = None


class Completing(Generating, kw_only=True):
    """The body of /v1/completions."""

    prompt: Any
    echo: bool | None = None
    logprobs: int | None = None
    best_of: int | None = None
    suffix: str | None = None


class Chatting(Generating, kw_only=True):
    """The body of /v1/chat/completions."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    modalities: list[str] | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None


class Embedding(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of /v1/embeddings. pooling, start: as rf.embed takes them."""

    input: Any
    model: str | None = None
    encoding_format: str | None = None
    dimensions: int | None = None
    user: str | None = None
    pooling: str | None = None
    start: int | None = None


class NativeSampling(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`sampling_params` of /generate. lark, calls and whitespace are ramify's own, for programs that run elsewhere."""

    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    sampling_seed: int | None = None
    n: int | None = None
    regex: str | None = None
    json_schema: str | None = None
    lark: str | None = None
    calls: str | None = None
    whitespace: bool = False


class NativeGenerating(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of /generate, SGLang's own interface. `rid` is a label."""

    text: str | list[str] | None = None
    input_ids: Any = None
    sampling_params: NativeSampling = msgspec.field(default_factory=NativeSampling)
    return_logprob: bool = False
    logprob_start_len: int | list[int] | None = None
    top_logprobs_num: int = 0
    return_text_in_logprobs: bool = False
    return_prompt_token_ids: bool = False
    stream: bool = False
    rid: str | None = None
