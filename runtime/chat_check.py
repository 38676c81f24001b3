"""Asks a model's template how it would write one message, now that others follow it.

Templates see whole conversations, and some write an earlier message otherwise than a later one: without its reasoning,
or with an empty one before it. Such a message is put into a sample conversation, and the template's text compared with
what was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .call_results import CallingTemplate
from .chat_template import Messages, Refused, Template
from .roles import ASSISTANT, SYSTEM, TOOL, USER, Pair

_Place = tuple[tuple[str, ...], int]

ANSWERED: Mapping[Pair, _Place] = {
    (None, SYSTEM): ((SYSTEM, USER, ASSISTANT, USER), 0),
    (None, USER): ((USER, ASSISTANT, USER), 0),
    (SYSTEM, USER): ((SYSTEM, USER, ASSISTANT, USER), 1),
    (ASSISTANT, USER): ((USER, ASSISTANT, USER), 2),
    (USER, ASSISTANT): ((USER, ASSISTANT, USER, ASSISTANT, USER), 1),
    (ASSISTANT, TOOL): ((USER, ASSISTANT, TOOL, ASSISTANT, USER), 2),
    (TOOL, ASSISTANT): ((USER, ASSISTANT, TOOL, ASSISTANT, USER, ASSISTANT, USER), 3),
}
"""A conversation and a position in it for a message of a role after one of another, long past."""

_UNANSWERED: Mapping[Pair, tuple[_Place, ...]] = {
    (USER, ASSISTANT): (((USER, ASSISTANT, TOOL), 1), ((USER, ASSISTANT, TOOL, ASSISTANT, TOOL), 1)),
    (TOOL, ASSISTANT): (
        ((USER, ASSISTANT, TOOL, ASSISTANT, TOOL), 3),
        ((USER, ASSISTANT, TOOL, ASSISTANT, TOOL, ASSISTANT, TOOL), 3),
    ),
}
"""The same for an assistant message that no user message follows yet: the last one, and one before another."""

_BEFORE = {None: (), SYSTEM: (SYSTEM,), USER: (USER,), ASSISTANT: (USER, ASSISTANT), TOOL: (USER, ASSISTANT, TOOL)}
"""What a conversation begins with so that a message follows one of a role."""


def _places_of(pair: Pair, *, is_answered: bool) -> tuple[_Place, ...]:
    """Conversations with a message of a role after one of another; none for roles that no sample is known of."""
    previous, role = pair
    if not is_answered:
        return _UNANSWERED.get(pair, ())
    if (known := ANSWERED.get(pair)) is not None:
        return (known,)
    if previous not in _BEFORE:
        return ()
    before = _BEFORE[previous]
    return (((*before, role, *((USER, ASSISTANT, USER) if role == ASSISTANT else (ASSISTANT, USER))), len(before)),)


def sample_text(index: int) -> str:
    """The text of message number `index` of a sample conversation, such as no template contains."""
    return f"Zq{index}qZ"


def sample(roles: tuple[str, ...]) -> list[tuple[str, str]]:
    """A conversation of these roles."""
    return [(role, sample_text(index)) for index, role in enumerate(roles)]


@dataclass(frozen=True, slots=True)
class TemplateCheck:
    """A template that is asked about single messages."""

    template: Template | CallingTemplate

    def differs(self, pair: Pair, text: str, opening: str, sent: str, *, is_answered: bool) -> bool:
        """Whether the template writes a message of this text otherwise than it was sent, opening included.

        pair: the role before and the message's own; one of which no sample is known counts as differing once it is
        answered. opening: that of a plain message at such a place.
        """
        places = _places_of(pair, is_answered=is_answered)
        if not places:
            return is_answered
        return any(self._differs_at(place, text, opening, sent) for place in places)

    def _differs_at(self, place: _Place, text: str, opening: str, sent: str) -> bool:
        roles, index = place
        plain, changed = sample(roles), sample(roles)
        changed[index] = (roles[index], text)
        try:
            before, _, after = self._render(plain).partition(sample_text(index))
        except Refused:
            return False  # there is no such place
        try:
            shown = self._render(changed)
        except Refused:
            return True
        return shown != before.removesuffix(opening) + sent + after

    def _render(self, messages: Messages) -> str:
        return self.template.render(messages, prompt=True)
