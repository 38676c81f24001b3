"""How chat messages are written as text: what stands before and after each, and what is done to their contents.

A prompt grows message by message, so it needs a template's marks, not its whole rendering. `chat_derivation.py` reads
them off a model's Jinja template; `writing.py` writes messages with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..ir.errors import Unsupported
from .call_format import CallFormat
from .roles import ASSISTANT, SYSTEM, TOOL, USER, Pair

if TYPE_CHECKING:
    from .chat_check import TemplateCheck


class ChatTemplateWarning(UserWarning):
    """The model's chat template would write an earlier message otherwise than it was sent, and stays."""


def common_start(texts: Sequence[str]) -> str:
    """The longest text that all of them begin with; of the sorted texts only the outer two can differ first."""
    low, high = min(texts), max(texts)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return low[:length]


@dataclass(frozen=True, slots=True)
class Content:
    """What a template does to the text of a message. left, right: the characters it strips from the two ends.

    escape: "json" and "ascii_json" write the text as the inside of a JSON string.
    """

    left: str = ""
    right: str = ""
    escape: str = ""

    def __bool__(self) -> bool:
        return bool(self.left or self.right or self.escape)

    def escaped(self, text: str) -> str:
        """The text with its escapes, but not stripped."""
        return json.dumps(text, ensure_ascii=self.escape == "ascii_json")[1:-1] if self.escape else text

    def whole(self, text: str) -> str:
        """How the template writes a message's whole text."""
        if self.left:
            text = text.lstrip(self.left)
        return self.escaped(text.rstrip(self.right) if self.right else text)


AS_IT_IS = Content()


@dataclass(frozen=True)
class Opening:
    """What stands before the text of a message, by who writes it; for most roles and templates it is all the same.

    written: of a message that is the program's alone. generated: of one that the model writes (the template's
    generation prompt). continued: of one that the program begins and the model goes on with. unanswered: how the
    template writes the program's own message until a user message follows, where that is another text.
    """

    written: str
    generated: str
    continued: str
    content: Content = AS_IT_IS
    unanswered: str | None = None

    @classmethod
    def plain(cls, text: str, content: Content = AS_IT_IS) -> Opening:
        """The same whoever writes the message."""
        return cls(text, text, text, content)

    @cached_property
    def common(self) -> str:
        """What all three begin with."""
        return common_start([self.written, self.generated, self.continued])

    @cached_property
    def waits(self) -> bool:
        """Whether how a message is written depends on what comes."""
        return not self.written == self.generated == self.continued or bool(self.content)

    @cached_property
    def is_rewritten(self) -> bool:
        """Whether a message stands otherwise, by more than white space, once it is past, or answered."""
        begun = (self.generated, self.continued, self.unanswered or self.written)
        return any(text.strip() != self.written.strip() for text in begun)

    @cached_property
    def rest(self) -> Opening:
        """What is left of each behind what they have in common."""
        return self.without(self.common)

    def without(self, text: str) -> Opening:
        """Less a text that all begin with."""
        return replace(
            self,
            written=self.written.removeprefix(text),
            generated=self.generated.removeprefix(text),
            continued=self.continued.removeprefix(text),
        )


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """The marks of a conversation's messages.

    refusals: why the template has no such message there; under (None, role) why it has none at all. rewritten: by role,
    texts (such as "</think>") for which the template writes a message otherwise once others follow it. has_bos: whether
    the marks hold the beginning-of-text token wherever there is to be one, so that none is put before them. notes: what
    the user should know of the format, in words.
    unusable: why it has no messages at all, and what to do. warning: what its use is to be warned of.
    check: the template itself, for single messages. sends_tools: whether what tools there are goes along with each
    request, and is no part of the text. declared: the formats of conversations that declare tools, by these. calls:
    how an assistant's message holds calls of tools; None where the template has no form for them.
    """

    openings: Mapping[Pair, Opening]
    closings: Mapping[str, str]
    refusals: Mapping[Pair, str] = field(default_factory=lambda: MappingProxyType({}))
    rewritten: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    has_bos: bool = False
    notes: tuple[str, ...] = ()
    unusable: tuple[str, str] | None = None
    warning: str | None = None
    check: TemplateCheck | None = field(default=None, compare=False, repr=False)
    calls: CallFormat | None = None
    sends_tools: bool = False
    declared: dict[str, ChatFormat] = field(default_factory=dict, init=False, compare=False, repr=False)

    @classmethod
    def from_marks(
        cls, marks: Mapping[str, tuple[str, str]], *, assistant_lead: str = "", notes: tuple[str, ...] = ()
    ) -> ChatFormat:
        """A plain format: the same opening and closing for each role wherever it stands.

        assistant_lead: what stands between the assistant's opening and its text, and a model writes itself.
        """
        befores: tuple[str | None, ...] = (None, *marks)
        openings = {
            (before, role): Opening(opening + lead, opening, opening + lead)
            for role, (opening, _) in marks.items()
            for before in befores
            for lead in [assistant_lead if role == ASSISTANT else ""]
        }
        return cls(openings, {role: closing for role, (_, closing) in marks.items()}, notes=notes)

    @classmethod
    def refusing(cls, reason: str, help: str) -> ChatFormat:
        """A format without messages: for a model whose template is not known or cannot be used."""
        return cls({}, {}, unusable=(reason, help))

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that the format can express."""
        return tuple(self.closings)

    def opening(self, role: str, previous: str | None) -> Opening:
        """What stands before a message; previous: the role of the one before it. Raises Unsupported."""
        found = self.openings.get((previous, role))
        if found is None:
            raise self._refusal(previous, role)
        return found

    def closing(self, role: str) -> str:
        """The text after a message of this role. Raises Unsupported."""
        if role in self.closings:
            return self.closings[role]
        raise self._refusal(None, role)

    def without_bos(self, bos: str) -> ChatFormat:
        """The format for text that gets its beginning-of-text token elsewhere."""
        first = {pair: made.without(bos) for pair, made in self.openings.items() if pair[0] is None and bos}
        return replace(self, openings=MappingProxyType({**self.openings, **first}), has_bos=False)

    def _refusal(self, previous: str | None, role: str) -> Unsupported:
        if self.unusable is not None:
            return Unsupported(self.unusable[0], help=self.unusable[1])
        place = "at the start" if previous is None else f"after one of role {previous!r}"
        reason = self.refusals.get((previous, role)) or self.refusals.get((None, role))
        because = f": {reason}" if reason else f"; its roles are {', '.join(self.roles)}"
        return Unsupported(
            f"the model's chat template has no message of role {role!r} {place}{because}", help=_HELP.get(role)
        )


_HELP = {
    SYSTEM: "write it at the beginning of the first user message",
    TOOL: "write the result in a user message: rf.user(result.content)",
}

DEFAULT_CHAT = ChatFormat.from_marks(
    {SYSTEM: ("SYSTEM: ", "\n"), USER: ("USER: ", "\n"), ASSISTANT: ("ASSISTANT:", "\n")},
    assistant_lead=" ",
    notes=("roles are written as plain text (SYSTEM: USER: ASSISTANT:)",),
)
"""The format of text that no model's template has a say in."""

NO_TEMPLATE = replace(
    DEFAULT_CHAT,
    warning="the model has no chat template; messages are written as plain text (SYSTEM: USER: ASSISTANT:), as the "
    "model may never have seen them",
)
"""The format for a model without a template."""
