"""The backend of a run that is replayed: what a program may know of the model without asking it anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from ...ir.errors import RecordingError
from ...runtime.backend import Backend, Handle, Scorer, Selector, Sink
from ...runtime.chat import ChatFormat
from ...runtime.prompt import Prompt
from ...runtime.request import SamplingParams
from .events import ModelRecord


class RecordedModel:
    """Stands in for the backend that a run was recorded on. open: gives that one, for what is asked anew."""

    def __init__(self, record: ModelRecord, chat: ChatFormat, open: Callable[[], Backend] | None = None) -> None:
        self.name = record.name
        self._record = record
        self.chat = chat
        self.features = frozenset(record.features) - {"prefill", "embed"}
        self.reasons = record.reasons | {"embed": "hidden states are not recorded: call rf.embed outside of the replay"}
        self._open = open
        self._opened: Backend | None = None

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Sink) -> Handle:
        """See Backend. Raises RecordingError where nothing may be asked anew, or it is another model."""
        return cast(Backend, self._backend()).generate(prompt, params, sink)

    def score(self, prompt: Prompt, texts: Sequence[str], sink: Sink, *, unconditional: bool = False) -> Handle:
        """See Scorer; raises as `generate`."""
        return cast(Scorer, self._backend()).score(prompt, texts, sink, unconditional=unconditional)

    def select(self, prompt: Prompt, choices: Sequence[str], sink: Sink) -> Handle:
        """See Selector; raises as `generate`."""
        return cast(Selector, self._backend()).select(prompt, choices, sink)

    def close(self) -> None:
        """See Backend: there is nothing to release."""

    def _backend(self) -> Any:
        if self._opened is None:
            if self._open is None:
                raise RecordingError("a run that is replayed asks no model")
            self._opened = of_model(self._record, self._open)
        return self._opened


def of_model(record: ModelRecord, open: Callable[[], Backend]) -> Backend:
    """The backend, if it is the one that was recorded. Raises RecordingError for another one."""
    opened = open()
    if opened.name != record.name:
        raise RecordingError(
            f"the recording is of the model {record.name}, and its tokens mean nothing to {opened.name}",
            help="replay on the model that was recorded, or record again",
        )
    return opened
