"""An edit: one event of a recorded run has another outcome when the run is made again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...ir.errors import Cancelled, ReplayMismatch
from ...ir.span import Span
from ...runtime.request import Done, SamplingParams
from .events import LMRecord, ToolRecord
from .hosting import key_of
from .recording import LMPlace, RecordedRun, place_of


@dataclass(frozen=True, slots=True)
class Value:
    """A tool's value, as values.py writes it."""

    data: Any


@dataclass(frozen=True, slots=True)
class Anew:
    """The event is asked for once more: a generation with these parameters in place of its own."""

    params: Mapping[str, Any]

    def changed(self, params: SamplingParams | None) -> SamplingParams | None:
        """The parameters to ask with; None for a choice."""
        return None if params is None else replace(params, **self.params)


@dataclass(frozen=True, slots=True)
class Edit:
    """by: what the event becomes; a Done is the answer of a generation or choice.

    run: the number of the recorded run. event: the event's id. label, span: what it is called, and where it stands.
    """

    run: int
    event: str
    by: Done | Value | Anew
    label: str
    span: Span | None


class Editing:
    """An edit of a run in the making. is_done: whether the run has come to the event."""

    def __init__(self, edit: Edit, recorded: RecordedRun) -> None:
        self.by = edit.by
        self.is_done = False
        self._edit = edit
        self._answer = next((each for each in recorded.answers if each.id == edit.event), None)
        self._difference = ""

    def comes_to(self, place: LMPlace) -> LMRecord | None:
        """The event, if it is a request that stands at this place."""
        answer = self._answer
        return answer if answer is not None and not self.is_done and place_of(answer) == place else None

    def takes(self, answer: LMRecord, hash: str, request: dict[str, Any]) -> bool:
        """Whether the request at the event's place, with its prompt's hash, is what was asked there."""
        self.is_done = answer.hash == hash and key_of(answer.request) == key_of(request)
        return self.is_done

    def takes_call(self, call: ToolRecord | None) -> bool:
        """Whether a recorded call of a tool is the event; its tool is called once more, or is given its value."""
        is_it = call is not None and call.id == self._edit.event
        self.is_done = self.is_done or is_it
        return is_it

    def differs(self, difference: str) -> None:
        """What stands at the event's place is something else; difference: in words."""
        self._difference = difference

    def missed(self, error: BaseException | None) -> BaseException | None:
        """What the run ends with, whose own error this is: that it has not come to the event."""
        if self.is_done or isinstance(error, Cancelled):
            return error
        how = self._difference or ("it failed before" if error is not None else "it does not ask for it any more")
        missed = ReplayMismatch(
            f"the run did not come to {self._edit.label} as it did when it was recorded: {how}",
            span=self._edit.span,
            help="what stands before an edit has to be what it was: the program, what it uses, and what it reads",
        )
        missed.__cause__ = error
        return missed
