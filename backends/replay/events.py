"""What a recording is made of: the models, the runs, and what each run was answered.

Every event belongs to a run and has a place in it that does not depend on when it came: an answer of the model that of
its branch and of how many generations stand before it there, a call of a tool its name, its arguments and its number
among equal ones.

The dataflow is there too. `before` is the event that the program asked for before this one, `reads` are those whose
values it has looked at since, and `after` is the one whose text the prompt goes on from. So an event may depend on
those that it comes after, on all that were read on the way of `before`, on the tools called on that way, and on no
others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from ...ir.span import Span
from ...runtime.call_format import CallFormat
from ...runtime.chat import ChatFormat, Content, Opening
from ...runtime.request import Delta, Done

Kind = Literal["gen", "select", "score"]
Where = tuple[str, int, int]
"""A place in a source file: its name without folders, the line (from 1) and the column (from 0)."""


Times = tuple[float, float]
"""When something began and ended, in milliseconds since the recording began."""


class _Record(msgspec.Struct, frozen=True, omit_defaults=True):
    pass


class OpeningRecord(_Record, frozen=True):
    """An Opening (runtime/chat.py) after one role (or None) and of another."""

    before: str | None
    role: str
    written: str
    generated: str
    continued: str
    content: tuple[str, str, str] = ("", "", "")
    unanswered: str | None = None


class ChatRecord(_Record, frozen=True):
    """A ChatFormat, save the template itself."""

    openings: tuple[OpeningRecord, ...]
    closings: dict[str, str]
    refusals: tuple[tuple[str | None, str, str], ...] = ()
    rewritten: dict[str, tuple[str, ...]] = {}
    has_bos: bool = False
    notes: tuple[str, ...] = ()
    unusable: tuple[str, str] | None = None
    warning: str | None = None
    calls: CallFormat | None = None
    sends_tools: bool = False

    @classmethod
    def of(cls, chat: ChatFormat) -> ChatRecord:
        """A format as data."""
        openings = tuple(
            OpeningRecord(
                before,
                role,
                made.written,
                made.generated,
                made.continued,
                (made.content.left, made.content.right, made.content.escape),
                made.unanswered,
            )
            for (before, role), made in chat.openings.items()
        )
        return cls(
            openings,
            dict(chat.closings),
            tuple((before, role, reason) for (before, role), reason in chat.refusals.items()),
            dict(chat.rewritten),
            chat.has_bos,
            chat.notes,
            chat.unusable,
            chat.warning,
            chat.calls,
            chat.sends_tools,
        )

    def format(self) -> ChatFormat:
        """The format."""
        openings = {
            (each.before, each.role): Opening(
                each.written, each.generated, each.continued, Content(*each.content), each.unanswered
            )
            for each in self.openings
        }
        return ChatFormat(
            openings,
            self.closings,
            {(before, role): reason for before, role, reason in self.refusals},
            self.rewritten,
            self.has_bos,
            self.notes,
            self.unusable,
            self.warning,
            calls=self.calls,
            sends_tools=self.sends_tools,
        )


class ModelRecord(_Record, frozen=True, tag="model"):
    """A backend that runs used: what a program may know of it without asking it anything."""

    id: int
    name: str
    features: tuple[str, ...]
    reasons: dict[str, str]
    chat: ChatRecord


class DeclaredRecord(_Record, frozen=True, tag="declared"):
    """How a model's messages are written in a conversation that declares tools; tools: them, as JSON."""

    model: int
    tools: str
    chat: ChatRecord


class RunRecord(_Record, frozen=True, tag="run"):
    """A run that has begun.

    parent: the run whose program started it, if one did. arguments: a hash of them; shown: what they are, cut short.
    number: how many runs of this program with equal arguments (and parent) began before. form: "eager" or "compiled".
    begun_ms: when, since the recording began; None in older recordings.
    """

    id: int
    model: int
    program: str
    arguments: str
    shown: str
    number: int
    form: str
    parent: int | None = None
    where: Where | None = None
    begun_ms: float | None = None


class LMRecord(_Record, frozen=True, tag="lm"):
    """A generation, choice or score, with what the backend answered: `done`, or `error`.

    branch, number, sample: its place, see runtime/seeds.py; several scores may have one. prompt: the text after the
    event `after`, or all of it, without what it begins with: the first `same` characters of the prompt of the event
    `like`. hash: of the whole prompt. request: what else was asked. deltas: the pieces that were told.
    times: None where another recording has answered.
    """

    id: str
    run: int
    kind: Kind
    name: str | None
    branch: tuple[int, ...]
    number: int
    sample: int
    prompt: str
    hash: str
    request: dict[str, Any]
    where: Where | None = None
    after: str | None = None
    like: str | None = None
    same: int = 0
    before: str | None = None
    reads: tuple[str, ...] = ()
    deltas: tuple[Delta, ...] = ()
    done: Done | None = None
    error: Any = None
    times: Times | None = None


class ToolRecord(_Record, frozen=True, tag="tool"):
    """A tool call with its outcome: `value` or `error`, or `lost`, which says why there is none.

    number: how many calls of the tool with equal arguments began before in the run. arguments, value, error: as
    values.py writes them. ms: milliseconds. times: None where it was not called.
    """

    id: str
    run: int
    name: str
    arguments: Any
    number: int
    where: Where | None = None
    before: str | None = None
    reads: tuple[str, ...] = ()
    ms: float = 0.0
    value: Any = None
    error: Any = None
    lost: str | None = None
    times: Times | None = None


class HostRecord(_Record, frozen=True, tag="host"):
    """What host code gave that may do more than compute: its outputs, or its error.

    code: its beginning. branch, inputs, number: its place, with a hash of the code and its inputs, and the number among
    equal ones.
    outputs: as values.py writes them; lost: why there is none, by the number of the output. lists: what lists among the
    inputs held after it, by the number of the input, where it changed them.
    """

    id: str
    run: int
    code: str
    branch: tuple[int, ...]
    inputs: str
    number: int
    where: Where | None = None
    before: str | None = None
    reads: tuple[str, ...] = ()
    outputs: tuple[Any, ...] = ()
    lost: dict[int, str] = {}
    lists: dict[int, Any] = {}
    error: Any = None
    times: Times | None = None


class OrderRecord(_Record, frozen=True, tag="order"):
    """The order in which the items of an unordered group stood. items: a hash of them, as the program has them."""

    run: int
    branch: tuple[int, ...]
    number: int
    items: str
    order: tuple[int, ...]


class EndRecord(_Record, frozen=True, tag="end"):
    """A run has ended; error: with what, if not well. ended_ms: as begun_ms of RunRecord."""

    run: int
    error: Any = None
    ended_ms: float | None = None


Record = ModelRecord | DeclaredRecord | RunRecord | LMRecord | ToolRecord | HostRecord | OrderRecord | EndRecord
_decoder = msgspec.msgpack.Decoder(Record)


def to_bytes(record: Record) -> bytes:
    """A record as a frame's payload. Raises TypeError or UnicodeEncodeError for what msgpack cannot hold."""
    return msgspec.msgpack.encode(record, enc_hook=_number)


def of_bytes(payload: bytes) -> Record:
    """The record. Raises msgspec.DecodeError."""
    return _decoder.decode(payload)  # type: ignore[no-any-return]


def _number(value: Any) -> Any:
    """A number of numpy's as one of Python's."""
    return value.item()


def digest(parts: Iterable[bytes]) -> str:
    """A hash: 32 hexadecimal digits."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.hexdigest()


def where_of(span: Span | None) -> Where | None:
    """The place of a span."""
    return None if span is None else (span.file.replace("\\", "/").rpartition("/")[2], span.line, span.column)


def place_text(where: Where | None) -> str:
    """A place, as errors name it."""
    return "an unknown line" if where is None else f"{where[0]}:{where[1]}"
