"""SGLang's native interface over the embedded model, for the stub server: the same model that runs in this process.

Written from the interface: what is asked for by length, token id or text, and what comes back, piece by piece.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ramify.backends.local import LocalBackend
from ramify.runtime.pending import Pending
from ramify.runtime.request import Done, EngineRequest, Failed, SamplingParams

from .stub import Asked, Reply, error_reply, json_reply

_NAMES = {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens", "sampling_seed": "seed"}


class SGLangApp:
    """Answers /generate with a local backend's model.

    model_path: what /model_info tells. incremental: pieces of a stream hold only what is new. server_info: more of it.
    """

    def __init__(
        self, backend: LocalBackend, model_path: str, *, incremental: bool = False, **server_info: Any
    ) -> None:
        self.backend = backend
        self.tokenizer = backend.tokenizer
        self.model_info = {"model_path": model_path, "tokenizer_path": model_path, "is_generation": True}
        self.server_info = {"incremental_streaming_output": incremental, "version": "0.5", **server_info}
        self.incremental = incremental
        self.num_flushes = 0

    def __call__(self, asked: Asked) -> Reply:
        if asked.path in ("/model_info", "/get_model_info"):
            return json_reply(self.model_info)
        if asked.path in ("/server_info", "/get_server_info"):
            return json_reply(self.server_info)
        if asked.path == "/flush_cache":
            self.num_flushes += 1
            return Reply(b"Cache flushed.\n", content_type="text/plain")
        if asked.path == "/generate":
            return self._generate(asked.body)
        return error_reply(404, f"no {asked.path}")

    def _generate(self, body: dict[str, Any]) -> Reply:
        prompts = body["input_ids"] if "input_ids" in body else body["text"]
        if not (isinstance(prompts, list) and isinstance(prompts[0], str | list)):
            return self._one(body, prompts)
        starts = body.get("logprob_start_len")
        starts = starts if isinstance(starts, list) else [starts] * len(prompts)
        bodies = [body | {"logprob_start_len": start} for start in starts]
        replies = [self._one(each, prompt) for each, prompt in zip(bodies, prompts, strict=True)]
        return Reply(b"[" + b",".join(reply.body for reply in replies) + b"]")

    def _one(self, body: dict[str, Any], prompt: Any) -> Reply:
        prompt_ids = self._encode(prompt) if isinstance(prompt, str) else prompt
        sampling = body["sampling_params"]
        if sampling.get("top_k", -1) == 0:
            return error_reply(400, "top_k must be -1 (disable) or at least 1, got 0.")
        pieces = self._pieces(prompt_ids, sampling, body)
        if body.get("stream"):
            return Reply(events=[json.dumps(piece).encode() for piece in pieces] + [b"[DONE]"])
        return json_reply(pieces[-1])

    def _encode(self, text: str) -> list[int]:
        bos = self.tokenizer.bos_id
        return [*([] if bos is None else [bos]), *self.tokenizer.encode(text)]

    def _pieces(self, prompt_ids: list[int], sampling: dict[str, Any], body: dict[str, Any]) -> list[dict[str, Any]]:
        """The answer as it stands after each token."""
        given = {_NAMES.get(name, name): value for name, value in sampling.items() if name in _TAKEN}
        given |= {"top_k": max(given.get("top_k", 0), 0), "stop_token_ids": tuple(given.get("stop_token_ids", ()))}
        params = SamplingParams(
            **given, logprobs=body.get("top_logprobs_num", 0) if body.get("return_logprob") else None
        )
        done = self._run(prompt_ids, params)
        ids, logprobs = list(done.token_ids), list(done.logprobs)
        finish: dict[str, Any] = {"type": done.finish_reason, "matched": done.matched}
        if done.matched is not None:
            ids.append(done.matched)  # type: ignore[arg-type]
        if done.finish_reason == "length":
            finish = {"type": "length", "length": len(ids)}
        stops, patterns = sampling.get("stop") or [], sampling.get("stop_regex") or []
        for length in range(1, len(ids) + 1):
            text = self.tokenizer.decode(ids[:length])
            found = [stop for stop in stops if stop in text] or [each for each in patterns if re.search(each, text)]
            if found:
                ids, logprobs, finish = ids[:length], logprobs[:length], {"type": "stop", "matched": found[0]}
                break
        return [
            self._piece(prompt_ids, ids, length, logprobs, finish if length == len(ids) else None, body)
            for length in range(min(1, len(ids)), len(ids) + 1)
        ]

    def _piece(
        self, prompt_ids: list[int], ids: list[int], length: int, logprobs: list[Any], finish: Any, body: dict[str, Any]
    ) -> dict[str, Any]:
        first = max(length - 1, 0) if self.incremental and body.get("stream") else 0
        before, text = self.tokenizer.decode(ids[:first]), self.tokenizer.decode(ids[:length])
        if finish is not None and isinstance(finish.get("matched"), str):
            place = text.find(finish["matched"])  # a pattern is not found as a text: what matches it stays
            text = text if place < 0 else text[:place]
        meta: dict[str, Any] = {
            "id": "x",
            "finish_reason": finish,
            "prompt_tokens": len(prompt_ids),
            "completion_tokens": length,
            "cached_tokens": 1,
        }
        if body.get("return_logprob"):
            entries = [(each.logprob, each.token_id, self._text(each.token_id)) for each in logprobs[:length]]
            entries += [(-0.25, token_id, self._text(token_id)) for token_id in ids[len(entries) : length]]
            tops = [[(value, top, self._text(top)) for top, value in each.top] for each in logprobs[:length]]
            meta["output_token_logprobs"] = entries[first:]
            meta["output_top_logprobs"] = (tops + [[]] * (length - len(tops)))[first:]
            start, num_top = body.get("logprob_start_len"), body.get("top_logprobs_num", 0)
            told = self._input_logprobs(prompt_ids, start, num_top)
            meta["input_token_logprobs"] = [entry for entry, _ in told]
            meta["input_top_logprobs"] = [top for _, top in told] if num_top else None
            if not body.get("return_text_in_logprobs"):
                _drop_texts(meta)
        answer = {"text": text[len(before) :], "output_ids": ids[first:length], "meta_info": meta}
        return answer | ({"prompt_token_ids": prompt_ids} if body.get("return_prompt_token_ids") else {})

    def _text(self, token_id: int) -> str:
        return self.tokenizer.decode([token_id])

    def _input_logprobs(self, prompt_ids: list[int], start: int | None, num_top: int) -> list[tuple[Any, Any]]:
        """From the token at `start` on, each with the most likely ones; the first has no log-probability."""
        if start is None or start < 0:
            return []
        told: list[tuple[Any, Any]] = [((None, prompt_ids[start], self._text(prompt_ids[start])), None)]
        if start + 1 < len(prompt_ids):
            done = self._run(prompt_ids, SamplingParams(max_tokens=0, logprobs=num_top), score_from=start + 1)
            for each in done.logprobs:
                top = [(value, other, self._text(other)) for other, value in each.top]
                told.append(((each.logprob, each.token_id, self._text(each.token_id)), top))
        return told

    def _run(self, prompt_ids: list[int], params: SamplingParams, score_from: int | None = None) -> Done:
        outcome: Pending[Any] = Pending()

        def take(event: Any) -> None:
            if isinstance(event, Done | Failed):
                outcome.set_result(event)

        self.backend.engine.submit(EngineRequest(prompt_ids, params, take, score_from))
        event = outcome.wait(20)
        if isinstance(event, Failed):
            raise event.error
        assert isinstance(event, Done)
        return event


def _drop_texts(meta: dict[str, Any]) -> None:
    for name in ("input_token_logprobs", "output_token_logprobs"):
        meta[name] = [(value, token_id, None) for value, token_id, _ in meta[name]]
    for name in ("input_top_logprobs", "output_top_logprobs"):
        tops = meta[name] or []
        meta[name] = [top and [(value, token_id, None) for value, token_id, _ in top] for top in tops]


_TAKEN = {
    "max_new_tokens", "min_new_tokens", "temperature", "top_p", "top_k", "min_p", "frequency_penalty",
    "presence_penalty", "repetition_penalty", "stop_token_ids", "ignore_eos", "sampling_seed",
}  # fmt: skip
