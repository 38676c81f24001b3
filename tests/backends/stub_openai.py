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
        if (wrong := _wrong_about_calls(body["messages"])) is not None:
            return error_reply(400, wrong)
        if body.get("tools") and body.get("tool_choice", "auto") != "none" and not _wants_words(body):
            return _calls(body)
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


def _wrong_about_calls(messages: list[dict[str, Any]]) -> str | None:
    """What OpenAI's servers would refuse: calls without a result each, and results without a call."""
    open_ids: set[str] = set()
    for message in messages:
        if message["role"] == "tool" and "tool_call_id" in message:
            if message["tool_call_id"] not in open_ids:
                return f"no call has the id {message['tool_call_id']!r}"
            open_ids.remove(message["tool_call_id"])
        elif open_ids:
            return f"calls without a result: {sorted(open_ids)}"
        for call in message.get("tool_calls", ()):
            json.loads(call["function"]["arguments"])
            open_ids.add(call["id"])
    return f"calls without a result: {sorted(open_ids)}" if open_ids else None


def _wants_words(body: dict[str, Any]) -> bool:
    """Whether the model answers in words: where it may, and the last message asks for that or is a result."""
    last = body["messages"][-1]
    return body["tool_choice"] == "auto" and (last["role"] == "tool" or "words" in _content(last))


def _calls(body: dict[str, Any]) -> Reply:
    """One call, or two of them where several may be made at once; behind a word, where it need not call."""
    made = []
    for number in range(2 if body.get("parallel_tool_calls", True) else 1):
        function = body["tools"][number % len(body["tools"])]["function"]
        arguments = json.dumps(_example(function["parameters"]))
        made.append({"id": f"call_{len(body['messages'])}_{number}", "type": "function"})
        made[-1]["function"] = {"name": function["name"], "arguments": arguments}
    content = "Well." if body["tool_choice"] == "auto" else None
    usage = {"prompt_tokens": 5, "completion_tokens": 7}
    if not body.get("stream"):
        message = {"role": "assistant", "content": content, "tool_calls": made}
        return json_reply(
            {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": usage}
        )
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": content}]
    for index, call in enumerate(made):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        deltas.append({"tool_calls": [{**call, "index": index, "function": {"name": name, "arguments": ""}}]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": each}}]} for each in arguments]
    events: list[Any] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}, {"choices": [], "usage": usage}]
    return Reply(events=[json.dumps(event).encode() for event in events] + [b"[DONE]"])


def _example(schema: dict[str, Any]) -> Any:
    """A value of a simple schema."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "object":
        return {name: _example(part) for name, part in schema["properties"].items() if name in schema["required"]}
    return {"integer": schema.get("minimum", 1), "string": "é"}[schema["type"]]


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
