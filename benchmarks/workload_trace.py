"""Records what a program asks of a model, so that an asyncio script can ask for the same in the same order.

A row runs once on the model. Then it runs once more for each of its calls, on the answers that were recorded, with this
one call kept waiting: what the program does not ask for meanwhile is what depends on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ramify as rf
from ramify.backends.local import LocalBackend
from ramify.backends.scoring import to_judge
from ramify.runtime.backend import Handle, Sink
from ramify.runtime.hostpool import host_pool
from ramify.runtime.loop import loop
from ramify.runtime.prompt import Prompt
from ramify.runtime.request import Done, Event, SamplingParams

from .workload_calls import Call

# These change what is asked for. Without them the prompts are those that the program says, in its own order.
CHANGING = ("cse", "reorder", "speculate")
_POLL_SECONDS = 0.002
_QUIET_POLLS = 4


@dataclass
class _Asked:
    """A request, with its answer once it has come. prompts: with each text, without its last token, if there are such;
    so many tokens of them are computed to judge the texts."""

    prompts: list[tuple[int, ...]]
    texts: tuple[str, ...]
    params: SamplingParams
    done: Done | None = None

    @property
    def key(self) -> object:
        """Equal for equal requests."""
        return tuple(self.prompts), self.texts, self.params

    @property
    def answer(self) -> Done:
        """Raises RuntimeError where none has come."""
        if self.done is None:
            raise RuntimeError("a request of the recorded run was not answered")
        return self.done

    @property
    def whole(self) -> tuple[int, ...]:
        """Prompt and generated tokens; nothing where something generated is left out of the text."""
        done = self.answer
        is_kept = not self.texts and len(done.token_ids) == done.generated_tokens
        return self.prompts[0] + done.token_ids if is_kept else ()


class _Watching:
    """A backend that knows which requests are made of it; the model's tokenizer makes tokens of their prompts."""

    def __init__(self, backend: LocalBackend) -> None:
        self.backend = backend
        self.name, self.chat = backend.name, backend.chat
        self.features = backend.features - {"prefill"}

    def asked(self, prompt: Prompt, params: SamplingParams, texts: Sequence[str] = ()) -> _Asked:
        """The request, in tokens."""
        known = self.backend.tokens.prepare(prompt).run()
        if not texts:
            return _Asked([tuple(known.token_ids)], (), params)
        judged = [each for text in texts for each in to_judge(known, text, False)]
        prompts = [(*before, *token_ids[:-1]) for _, before, token_ids in judged]
        return _Asked(prompts, tuple(texts), params)

    def close(self) -> None:
        """See Backend; the model's is not closed."""


class _Recorder(_Watching):
    """Passes requests on, and keeps them with their answers, in the order they came."""

    def __init__(self, backend: LocalBackend) -> None:
        super().__init__(backend)
        self.all_asked: list[_Asked] = []

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Sink) -> Handle:
        """See Backend."""
        return self.backend.generate(prompt, params, self._noting(self.asked(prompt, params), sink))

    def score(self, prompt: Prompt, texts: Sequence[str], sink: Sink, *, unconditional: bool = False) -> Handle:
        """See Scorer."""
        noting = self._noting(self.asked(prompt, SamplingParams(), texts), sink)
        return self.backend.score(prompt, texts, noting, unconditional=unconditional)

    def _noting(self, asked: _Asked, sink: Sink) -> _Noting:
        self.all_asked.append(asked)
        return _Noting(asked, sink)


class _Noting:
    """A sink that keeps the answer."""

    def __init__(self, asked: _Asked, sink: Sink) -> None:
        self.wants_deltas, self.sharing, self.use = sink.wants_deltas, sink.sharing, sink.use
        self._asked, self._sink = asked, sink

    def __call__(self, event: Event) -> None:
        if isinstance(event, Done):
            self._asked.done = event
        self._sink(event)


class _Replay(_Watching):
    """Answers as recorded, at once; the request `held` only when nothing else moves any more.

    early: which requests were made by then.
    """

    def __init__(self, backend: LocalBackend, recorded: list[_Asked], held: int) -> None:
        super().__init__(backend)
        self.early: set[int] = set()
        self._recorded = recorded
        self._held = held
        self._is_over = False
        self._seen: Counter[object] = Counter()
        self._num_quiet = 0

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Sink) -> _Replay:
        """See Backend."""
        return self._answer(self.asked(prompt, params), sink)

    def score(self, prompt: Prompt, texts: Sequence[str], sink: Sink, *, unconditional: bool = False) -> _Replay:
        """See Scorer."""
        return self._answer(self.asked(prompt, SamplingParams(), texts), sink)

    def cancel(self) -> None:
        """See Handle: an answer is on its way in any case."""

    def _answer(self, asked: _Asked, sink: Sink) -> _Replay:
        index = self._index(asked.key)
        answer = partial(sink, self._recorded[index].answer)
        if not self._is_over:
            self.early.add(index)
            self._num_quiet = 0
        if index == self._held:
            loop().when_idle(partial(self._settle, answer))
        else:
            loop().soon(answer)
        return self

    def _index(self, key: object) -> int:
        """Of several equal requests the next one. Raises RuntimeError for one that was not recorded."""
        alike = [index for index, asked in enumerate(self._recorded) if asked.key == key]
        self._seen[key] += 1
        if self._seen[key] > len(alike):
            raise RuntimeError("the program asks for something else when it runs again on the same answers")
        return alike[self._seen[key] - 1]

    def _settle(self, answer: Callable[[], object]) -> None:
        """Nothing waits on the loop: answer what is held, if nothing came from a thread for a while either."""
        self._num_quiet = self._num_quiet + 1 if host_pool().is_quiet else 0
        if self._num_quiet < _QUIET_POLLS:
            loop().later(_POLL_SECONDS, loop().when_idle, partial(self._settle, answer))
            return
        self._is_over = True
        answer()


def record(program: rf.Program, rows: Sequence[dict[str, Any]], backend: LocalBackend) -> list[list[Call]]:
    """What a program asks for on each row, without passes that change that. Raises what the program raises."""
    asking = program.options(disable=CHANGING)
    return [_record_row(asking, row, backend) for row in rows]


def _record_row(program: rf.Program, row: dict[str, Any], backend: LocalBackend) -> list[Call]:
    recorder = _Recorder(backend)
    program.run(**row, backend=recorder)
    recorded = recorder.all_asked
    after: list[list[int]] = [[] for _ in recorded]
    for held in range(len(recorded)):
        replay = _Replay(backend, recorded, held)
        program.run(**row, backend=replay)
        for index in range(len(recorded)):
            if index not in replay.early:
                after[index].append(held)
    return [_call(recorded, index, after[index]) for index in range(len(recorded))]


def _call(recorded: list[_Asked], index: int, after: list[int]) -> Call:
    asked = recorded[index]
    continues = max(
        (other for other in after if _begins_with(asked, recorded[other].whole)),
        key=lambda other: len(recorded[other].whole),
        default=None,
    )
    num_before = 0 if continues is None else len(recorded[continues].whole)
    params = asked.params
    return Call(
        prompts=[list(prompt[num_before:]) for prompt in asked.prompts],
        continues=continues,
        after=after,
        generated=1 if asked.texts else asked.answer.generated_tokens,
        is_choice=bool(asked.texts),
        temperature=params.temperature,
        seed=params.seed,
    )


def _begins_with(asked: _Asked, whole: tuple[int, ...]) -> bool:
    return bool(whole) and all(len(prompt) > len(whole) and prompt[: len(whole)] == whole for prompt in asked.prompts)
