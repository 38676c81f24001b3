"""Published logs of debates: reading them, and backends that answer with what was said in one.

A log is a JSON object with the text to translate as "source" and, under "players", each role's messages.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ramify.backends.local import LocalBackend
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import BackendError, UsageError
from ramify.runtime.backend import Handle, Sink
from ramify.runtime.constraint import Constraint
from ramify.runtime.prompt import Prompt
from ramify.runtime.request import Done, Event, SamplingParams
from ramify.runtime.sharing import Sharing
from ramify.runtime.uses import Use

__all__ = ["Call", "ForcedBackend", "Log", "Transcript", "load_logs", "scripted"]

Transcript = list[dict[str, str]]
_ENDS = ("\x01", "\x02")
_MESSAGE = re.compile(r"<(system|user|assistant)>(.*?)(?:</\1>\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Log:
    """A debate that was held. name: of its file; answer: the verdict; players: each role's messages."""

    name: str
    question: str
    answer: str
    players: dict[str, Transcript]

    def turn(self, heard: Transcript) -> tuple[str, str]:
        """What was said after these messages: the role whose own messages are most like them, and its next words.

        Raises BackendError if every role had fewer turns.
        """
        heard = [message for message in heard if message["content"] or message["role"] != "assistant"]
        number = _num_said(heard)
        speakers = {role: messages for role, messages in self.players.items() if _num_said(messages) > number}
        if not speakers:
            raise BackendError(f"{self.name}: nobody had {number + 1} turns")
        role = max(speakers, key=lambda role: _likeness(speakers[role], heard))
        return role, [message["content"] for message in speakers[role] if message["role"] == "assistant"][number]


def load_logs(folder: Path) -> list[Log]:
    """The logs of a folder, by number. Raises UsageError if there are none."""
    files = sorted(folder.glob("*.json"), key=lambda file: (len(file.stem), file.stem))
    if not files:
        raise UsageError(f"there are no logs (*.json) in {folder}")
    return [_load(file) for file in files]


def _load(file: Path) -> Log:
    record = json.loads(file.read_text(encoding="utf-8"))
    try:
        return Log(file.name, record["source"], record["debate translation"], record["players"])
    except (KeyError, TypeError):
        raise UsageError(
            f"{file} is no log of a debate", help="one has `source`, `debate translation`, `players`"
        ) from None


def scripted(log: Log) -> ScriptedBackend:
    """A backend without a model that says what was said in the log."""

    def reply(prompt: str, _params: SamplingParams) -> str:
        return log.turn([{"role": role, "content": content} for role, content in _MESSAGE.findall(prompt)])[1]

    return ScriptedBackend(reply)


@dataclass(frozen=True)
class Call:
    """A role's turn as the engine had it: the prompt's and the generated token ids, and how many were cached."""

    role: str
    prompt: tuple[int, ...]
    generated: tuple[int, ...]
    cached: int


class ForcedBackend:
    """A model in this process that is held to what was said in a log. calls: what it was asked, in order.

    The engine computes and caches the real prompts; only the choice of tokens is taken from the model.
    """

    def __init__(self, model: LocalBackend, log: Log) -> None:
        self.name = f"{model.name}, forced"
        self.chat = model.chat
        self.features = frozenset({"json_schema"})
        self.calls: list[Call] = []
        self._model = model
        self._log = log

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Sink) -> Handle:
        """See Backend."""
        role, said = self._log.turn(prompt.messages_value())
        # With nothing left to choose the engine would not ask the model at all, so it chooses how to end.
        exactly = Constraint("regex", re.escape(said) + f"[{''.join(_ENDS)}]")
        # A token is a byte at least.
        forced = replace(params, constraint=exactly, stop=_ENDS, max_tokens=len(said.encode()) + 1)
        prompt_ids = tuple(self._model.tokens.prepare(prompt).run().token_ids)
        return self._model.generate(prompt, forced, _Watched(sink, role, prompt_ids, self.calls))

    def close(self) -> None:
        """The model is closed by whoever opened it."""


class _Watched:
    """A sink that also notes what the engine did."""

    def __init__(self, sink: Sink, role: str, prompt_ids: tuple[int, ...], calls: list[Call]) -> None:
        self._sink = sink
        self._role = role
        self._prompt_ids = prompt_ids
        self._calls = calls

    @property
    def wants_deltas(self) -> bool:
        return self._sink.wants_deltas

    @property
    def sharing(self) -> Sharing | None:
        return None

    @property
    def use(self) -> Use:
        return self._sink.use

    def __call__(self, event: Event) -> None:
        if isinstance(event, Done):
            self._calls.append(Call(self._role, self._prompt_ids, event.token_ids, event.cached_tokens))
        self._sink(event)


def _num_said(messages: Iterable[dict[str, str]]) -> int:
    return sum(message["role"] == "assistant" for message in messages)


def _likeness(messages: Transcript, others: Transcript) -> int:
    """How many characters the messages of two chats begin with in common."""
    pairs = zip(messages, others, strict=False)
    return sum(_common_len(mine["content"], other["content"]) for mine, other in pairs)


def _common_len(text: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    differing = (index for index, (mine, its) in enumerate(zip(text, other, strict=False)) if mine != its)
    return next(differing, min(len(text), len(other)))
