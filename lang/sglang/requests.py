"""Single requests without a program: SGLang's dicts in, SGLang's dicts out.

A request is a run of one generation: the same prompts, parameters and backends as those of programs.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...ir.errors import UsageError
from ...runtime.context import Context
from ...runtime.expression import SAMPLING_NAMES, build_gen
from ...runtime.generation import Generation
from ...runtime.loop import post
from ...runtime.meta import told, top_told
from ...runtime.prompt import Prompt
from ...runtime.request import Delta, TokenLogprob
from ..options import Options
from .settings import DEFAULTS, options
from .stream import Stream

if TYPE_CHECKING:
    from ...backends.local import LocalBackend

Text = str | Sequence[int]
_DEFAULTS = Options().updated(DEFAULTS).sampling
_RENAMED = {"sampling_seed": "seed"}
_CONSTRAINTS = ("regex", "json_schema")


class Requests:
    """Requests that run at once; `stream` is told of everything they say."""

    def __init__(self, backend: LocalBackend, prompts: Sequence[Text], params: Sequence[Mapping[str, Any]]) -> None:
        """`params` has one dict for each prompt; one with `n` makes that many requests. Raises UsageError."""
        self.stream = Stream()
        self._requests: list[_Request] = []
        for prompt, given in zip(prompts, params, strict=True):
            self._requests.extend(_requests(prompt, given))
        for request in self._requests:
            request.start(backend, self.stream)

    def results(self) -> _Results:
        """Reads the finished dicts, in order, once all are there."""
        return _Results(self._requests)

    def chunks(self) -> _Chunks:
        """Reads a dict for each piece of text, with all the text of its request so far, as they come."""
        return _Chunks(self._requests)

    def cancel(self) -> None:
        """Give up what has not ended. Thread-safe."""
        for request in self._requests:
            request.cancel()


class _Request:
    def __init__(self, prompt: Text, params: dict[str, Any]) -> None:
        self.id = uuid.uuid4().hex
        self._prompt = prompt
        self._params = params
        self.generation: Generation

    def start(self, backend: LocalBackend, stream: Stream) -> None:
        context = Context(backend, _DEFAULTS, stream)
        prompt = _begin(backend, context.root(), self._prompt)
        self.generation = prompt.append_value(build_gen(None, self._params)).value
        self.generation.pending.add_callback(stream.wake)

    def cancel(self) -> None:
        post(self.generation.context.cancel)

    @property
    def is_over(self) -> bool:
        return self.generation.pending.done

    def result(self) -> dict[str, Any]:
        """The whole, once it is over. Raises what it failed with."""
        done = self.generation.pending.result()
        meta = {
            "id": self.id,
            "finish_reason": _finish_reason(done.finish_reason, done.matched, done.generated_tokens),
            "prompt_tokens": done.prompt_tokens,
            "completion_tokens": done.generated_tokens,
            "cached_tokens": done.cached_tokens,
            "e2e_latency": (done.queue_ms + done.wall_ms) / 1000,
        }
        return {
            "text": done.text,
            "output_ids": list(done.token_ids),
            "meta_info": meta | self._logprobs(done.logprobs, done.prompt_logprobs),
        }

    def chunk(self, heard: Sequence[Delta]) -> dict[str, Any]:
        """What has come so far."""
        output_ids = [token_id for delta in heard for token_id in delta.token_ids]
        meta = {"id": self.id, "finish_reason": None, "completion_tokens": len(output_ids)}
        logprobs = [logprob for delta in heard for logprob in delta.logprobs]
        return {
            "text": "".join(delta.text for delta in heard),
            "output_ids": output_ids,
            "meta_info": meta | self._logprobs(logprobs),
        }

    def _logprobs(self, generated: Sequence[TokenLogprob], prompt: Sequence[TokenLogprob] = ()) -> dict[str, Any]:
        """Those that were asked for."""
        num_top = self._params.get("logprobs")
        if num_top is None:
            return {}
        tokens = {"output": generated}
        if "logprob_start_len" in self._params:
            tokens["input"] = prompt
        found: dict[str, Any] = {f"{which}_token_logprobs": told(each) for which, each in tokens.items()}
        if num_top:
            found |= {f"{which}_top_logprobs": [top_told(token) for token in each] for which, each in tokens.items()}
        return found


class _Results:
    """See stream.Reader."""

    def __init__(self, requests: Sequence[_Request]) -> None:
        self._requests = requests

    def is_over(self) -> bool:
        return all(request.is_over for request in self._requests)

    def new(self) -> Iterator[dict[str, Any]]:
        return iter(())

    def rest(self) -> Iterator[dict[str, Any]]:
        for request in self._requests:
            yield request.result()


class _Chunks:
    """See stream.Reader. Each dict has the number of its request as `index`."""

    def __init__(self, requests: Sequence[_Request]) -> None:
        self._requests = requests
        self._num_told = [0] * len(requests)
        self._is_told = [False] * len(requests)

    def is_over(self) -> bool:
        return all(request.is_over for request in self._requests)

    def new(self) -> Iterator[dict[str, Any]]:
        for index, request in enumerate(self._requests):
            is_over = request.is_over
            heard = request.generation.heard
            while self._num_told[index] < len(heard):
                self._num_told[index] += 1
                if heard[self._num_told[index] - 1].text:
                    yield request.chunk(heard[: self._num_told[index]]) | {"index": index}
            if is_over and not self._is_told[index]:
                self._is_told[index] = True
                yield request.result() | {"index": index}

    def rest(self) -> Iterator[dict[str, Any]]:
        return iter(())


def _requests(prompt: Text, given: Mapping[str, Any]) -> Iterator[_Request]:
    params = options({_RENAMED.get(name, name): value for name, value in given.items()})
    for name in ("skip_special_tokens", "spaces_between_special_tokens"):
        if not params.pop(name, True):
            raise UsageError(f"{name}=False: special tokens are never part of the text")
    num_samples = params.pop("n", 1)
    if unknown := [name for name in params if name not in SAMPLING_NAMES and name not in _CONSTRAINTS]:
        known = ", ".join(sorted([*SAMPLING_NAMES, *_CONSTRAINTS]))
        raise UsageError(f"there is no sampling parameter {unknown[0]!r}", help=f"known are {known}")
    for number in range(num_samples):
        seed = params.get("seed")
        yield _Request(prompt, params if seed is None else params | {"seed": seed + number})


def _begin(backend: LocalBackend, root: Prompt, prompt: Text) -> Prompt:
    """The prompt of a request. A text that begins with the BOS token itself gets no other."""
    tokens = backend.tokens
    if not isinstance(prompt, str):
        tokens.begin(root, prompt)
        return root
    bos = tokens.tokenizer.bos_id
    if bos is not None and prompt.startswith(tokens.tokenizer.token_text(bos)):
        tokens.begin(root, ())
    return root.append_text(prompt)


def _finish_reason(reason: str, matched: str | int | None, num_tokens: int) -> dict[str, Any]:
    if reason == "length":
        return {"type": "length", "length": num_tokens}
    return {"type": "abort"} if reason == "cancelled" else {"type": reason, "matched": matched}
