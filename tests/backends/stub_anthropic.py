"""Anthropic's messages interface of a model whose words depend on the prompt alone, for the stub server."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from ramify.backends.scripted import words

from .stub import Asked, Reply, json_reply
from .stub_openai import expected


def wrong(message: str, status: int = 400, kind: str = "invalid_request_error") -> Reply:
    """An error as the interface tells it."""
    return json_reply({"type": "error", "error": {"type": kind, "message": message}}, status)


def shown(body: dict[str, Any]) -> str:
    """The prompt as text."""
    system = "".join(block["text"] for block in body.get("system", ()))
    parts = [f"<system>{system}"] if system else []
    for message in body["messages"]:
        parts.append(f"<{message['role']}>" + "".join(map(_block, message["content"])))
    return "".join(parts)


def _block(block: dict[str, Any]) -> str:
    return block["text"] if block["type"] == "text" else json.dumps({**block, "cache_control": None})


def problem(body: dict[str, Any]) -> str | None:
    """What Anthropic's servers would refuse."""
    roles = [message["role"] for message in body["messages"]]
    blocks = [block for message in body["messages"] for block in message["content"]] + body.get("system", [])
    if roles[0] != "user" or any(one == other for one, other in pairwise(roles)):
        return f"roles do not alternate: {roles}"
    if any(block["type"] == "text" and not block["text"] for block in blocks):
        return "text content blocks must be non-empty"
    if any(not stop.strip() for stop in body.get("stop_sequences", ())):
        return "each stop sequence must contain non-whitespace"
    if sum("cache_control" in block for block in blocks) > 4:
        return "a maximum of 4 blocks with cache_control may be provided"
    uses = [block["id"] for block in blocks if block["type"] == "tool_use"]
    results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    return None if uses == results else f"calls {uses} and results {results}"


def anthropic_app(asked: Asked) -> Reply:
    """Answer /v1/messages, whole or streamed."""
    body = asked.body
    if asked.path != "/v1/messages":
        return wrong(f"no {asked.path}", 404)
    drawn = [name for name in ("temperature", "top_p", "top_k") if name in body]
    if drawn and asked.headers["anthropic-version"] != "2023-06-01":
        return wrong(f"{drawn[0]}: Extra inputs are not permitted")
    if (found := problem(body)) is not None:
        return wrong(found)
    kept = sum(len(json.dumps(each)) for each in _kept(body))
    prompt = shown(body)
    if body.get("tools") and body["tool_choice"]["type"] == "any":
        calls = [{"type": "tool_use", "id": f"toolu_{n}", "name": tool["name"], "input": {"kind": "cat"}}
                 for n, tool in enumerate(body["tools"])]  # fmt: skip
        calls = calls[:1] if body["tool_choice"]["disable_parallel_tool_use"] else calls
        return _reply(body, prompt, calls, "tool_use", None, kept)
    text, reason, matched = expected(prompt, body["max_tokens"], tuple(body.get("stop_sequences", ())))
    why = "max_tokens" if reason == "length" else "stop_sequence" if matched else "end_turn"
    return _reply(body, prompt, [{"type": "text", "text": text}], why, matched, kept)


def _kept(body: dict[str, Any]) -> list[Any]:
    blocks = body.get("system", []) + [block for message in body["messages"] for block in message["content"]]
    return [block for block in blocks if "cache_control" in block]


def _reply(
    body: dict[str, Any], prompt: str, content: list[dict[str, Any]], why: str, matched: str | None, kept: int
) -> Reply:
    usage = {
        "input_tokens": len(words(prompt)),
        "cache_creation_input_tokens": kept,
        "cache_read_input_tokens": 1,
        "output_tokens": sum(len(words(json.dumps(block))) for block in content),
    }
    end = {"stop_reason": why, "stop_sequence": matched}
    if not body.get("stream"):
        return json_reply({"type": "message", "role": "assistant", "content": content, "usage": usage, **end})
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"content": [], "usage": {**usage, "output_tokens": 1}}},
        {"type": "ping"},
    ]
    for index, block in enumerate(content):
        is_text = block["type"] == "text"
        empty = {"type": "text", "text": ""} if is_text else {**block, "input": {}}
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        for piece in words(block["text"]) if is_text else list(json.dumps(block["input"])):
            delta = {"type": "text_delta", "text": piece} if is_text else {"type": "input_json_delta"}
            delta |= {} if is_text else {"partial_json": piece}
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    events += [
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": usage["output_tokens"]}},
        {"type": "message_stop"},
    ]
    return Reply(events=[json.dumps(event, ensure_ascii=False).encode() for event in events])
