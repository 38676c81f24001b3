"""The OpenAI API of a model whose words depend on the prompt alone, for the stub server."""

from __future__ import annotations

import json
import zlib
from typing import Any

from ramify.backends.scripted import hash_reply, words
from ramify.runtime.request import SamplingParams

from .stub import Asked, Reply, error_reply, json_reply


def openai_app(asked: Asked) -> Reply:
    """Answer /v1/chat/completions and /v1/completions, whole or streamed."""
    body = asked.body
    if asked.path == "/v1/chat/completions":
        text = "".join(f"<{m['role']}>{_content(m)}" for m in body["messages"])
        return _reply(body, text, body.get("max_completion_tokens", body.get("max_tokens")), chat=True)
    if asked.path == "/v1/completions" and body.get("echo"):
        return _echo(body)
    if asked.path == "/v1/completions":
        return _reply(body, body["prompt"], body["max_tokens"], chat=False)
    return error_reply(404, f"no {asked.path}")


def _content(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else json.dumps(content)


def expected(prompt: str, max_tokens: int = 128, stop: tuple[str, ...] = ()) -> tuple[str, str, str | None]:
    """The text that the model gives after a prompt, why it ends there, and the stop that matched."""
    reply = words(hash_reply(prompt, SamplingParams()))
    text, reason = "".join(reply[:max_tokens]), "length" if len(reply) > max_tokens else "stop"
    found = [(text.index(each), each) for each in stop if each in text]
    if not found:
        return text, reason, None
    position, matched = min(found)
    return text[:position], "stop", matched


def _reply(body: dict[str, Any], prompt: str, max_tokens: int, *, chat: bool) -> Reply:
    text, reason, matched = expected(prompt, max_tokens, tuple(body.get("stop", ())))
    pieces = words(text)
    usage = {
        "prompt_tokens": len(words(prompt)),
        "completion_tokens": len(pieces),
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    end = {"finish_reason": reason, "stop_reason": matched}
    if not body.get("stream"):
        choice = {"index": 0, **_text(text, chat, "message"), **end}
        if body.get("logprobs") is not None:
            choice["logprobs"] = _logprobs(pieces, chat)
        return json_reply({"choices": [choice], "usage": usage})
    events: list[Any] = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}] if chat else []
    for piece in pieces:
        choice = {"index": 0, **_text(piece, chat, "delta"), "finish_reason": None}
        if body.get("logprobs") is not None:
            choice["logprobs"] = _logprobs([piece], chat)
        events.append({"choices": [choice]})
    events.append({"choices": [{"index": 0, **_text("", chat, "delta"), **end}]})
    if body.get("stream_options", {}).get("include_usage"):
        events.append({"choices": [], "usage": usage})
    return Reply(events=[json.dumps(event, ensure_ascii=False).encode() for event in events] + [b"[DONE]"])


def word_score(text: str) -> float:
    """The log-probability of the last word of a text."""
    return -1.0 - zlib.crc32(text.encode()) / 2**32


def _echo(body: dict[str, Any]) -> Reply:
    """The prompts' own tokens: words, with a log-probability that depends on all before them."""
    choices = []
    for index, prompt in enumerate(body["prompt"]):
        tokens = words(prompt)
        values = [None, *(word_score("".join(tokens[: i + 1])) for i in range(1, len(tokens)))]
        if body.get("return_tokens_as_token_ids"):
            tokens = [f"token_id:{zlib.crc32(token.encode()) & 0xFFFF}" for token in tokens]
        logprobs = {"tokens": tokens, "token_logprobs": values, "top_logprobs": None, "text_offset": []}
        choices.append({"index": index, "text": prompt, "logprobs": logprobs, "finish_reason": "length"})
    usage = {"prompt_tokens": sum(len(words(prompt)) for prompt in body["prompt"]), "completion_tokens": 0}
    return json_reply({"choices": choices[::-1], "usage": usage})


def _text(text: str, chat: bool, name: str) -> dict[str, Any]:
    return {name: {"content": text}} if chat else {"text": text}


def _logprobs(pieces: list[str], chat: bool) -> dict[str, Any]:
    if chat:
        top = [{"token": "other", "logprob": -2.5}]
        return {"content": [{"token": piece, "logprob": -0.5, "top_logprobs": top} for piece in pieces]}
    return {
        "tokens": pieces,
        "token_logprobs": [-0.5] * len(pieces),
        "top_logprobs": [{"other": -2.5} for _ in pieces],
        "text_offset": [0] * len(pieces),
    }
