"""Writes messages with a chat format, piece by piece: what each append adds to the text.

Some of it must wait. A template may open a message that the model writes otherwise than one that the program writes
(`<think>` in the generation prompt), and it may strip the text of a message. So text is held back where what follows
decides how it is written; what has been given out is never taken back. Where a template would write an earlier message
anew, with its reasoning cut out, the message stays as it was sent, and that is told (`warn_of` makes warnings of it).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Literal, NamedTuple

from .chat import AS_IT_IS, ChatFormat, ChatTemplateWarning, Opening
from .roles import ASSISTANT, USER

Follower = Literal["generated", "text"]
"""What comes next in a message: text that the model writes, or given text (the program's, or a choice)."""


class Writing(NamedTuple):
    """A place in a text that is being written.

    role, previous: of the open message and of the one before it, None outside of messages. opening: how it began.
    waits: what is left to be written of the opening, None once it is; begun: what was written of that. held: text of
    the program that waits. is_blank: whether nothing of the message's text is written yet. text, sent: the message's
    text so far, and how it was written behind what all openings have in common; None where nobody needs to know. past,
    unanswered: what is to be told when a user message follows, and when an assistant message does without one. told:
    what the user should be warned of.
    """

    chat: ChatFormat
    role: str | None = None
    previous: str | None = None
    opening: Opening | None = None
    waits: Opening | None = None
    begun: str = ""
    held: str = ""
    is_blank: bool = True
    text: str | None = None
    sent: str | None = None
    past: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    told: tuple[str, ...] = ()

    def of(self, chat: ChatFormat) -> Writing:
        """The same between messages, written in another format from here on."""
        return self if self.chat is chat else self._replace(chat=chat)

    def unwatched(self) -> Writing:
        """The same in a message that the template has in a form of its own, and so does not write as its text."""
        return self._replace(text=None, sent=None)

    def begin(self, role: str, previous: str | None) -> tuple[str, Writing]:
        """Begin a message; gives what can be written of its opening. Raises Unsupported."""
        opening = self.chat.opening(role, previous)
        past, unanswered, told = self.past, self.unanswered, self.told
        if previous is None and self.chat.warning is not None:
            told = (*told, self.chat.warning)
        if role == USER:
            past, unanswered, told = (), (), told + past
        elif role == ASSISTANT:
            unanswered, told = (), told + unanswered
        waits = opening.rest if role == ASSISTANT and opening.waits else None
        watched = "" if role in self.chat.rewritten or opening.is_rewritten else None
        return opening.common, Writing(
            self.chat, role, previous, opening, waits,
            text=watched, sent=watched, past=past, unanswered=unanswered, told=told,
        )  # fmt: skip

    def append(self, text: str) -> tuple[str, Writing]:
        """Text of the program."""
        content = AS_IT_IS if self.opening is None else self.opening.content
        if self.waits is not None:
            if not text or self.waits.written != self.waits.continued or content:
                return self._given(text, "", self.held + text)
            written = self.waits.written
            return self._replace(waits=None, begun=written)._given(text, written + text)
        if not content:
            return self._given(text, text)
        if content.left and self.is_blank and not self.held:
            text = text.lstrip(content.left)
        whole = self.held + text
        body = whole.rstrip(content.right) if content.right else whole
        return self._given(text, content.escaped(body), whole[len(body) :])

    def append_generated(self, text: str, follows: Follower = "generated") -> tuple[str, Writing]:
        """Text that the model wrote or chose, written as it is; gives what waited before it."""
        before, begun = self.waiting(follows), self.begun
        if self.waits is not None:
            begun = before.removesuffix(self.held)
        return before, self._replace(waits=None, begun=begun)._given(text, before + text)[1]

    def waiting(self, follows: Follower = "generated") -> str:
        """What is written first when such text comes next; also how the text ends if it is sent now."""
        if self.waits is None:
            return self.held if self.opening is None else self.opening.content.escaped(self.held)
        if self.held or follows == "text":
            return self.waits.continued + self.held
        return self.waits.generated

    def end(self) -> tuple[str, Writing]:
        """End the open message; gives what is left of it and its closing. Raises Unsupported."""
        assert self.role is not None and self.opening is not None
        content = self.opening.content
        begun = self.begun
        if self.waits is not None:
            begun = self.waits.written
            rest = begun + content.whole(self.held)
        else:
            rest = "" if content.right else content.escaped(self.held)
        after = Writing(self.chat, past=self.past, unanswered=self.unanswered, told=self.told)
        if self.text is not None and self.sent is not None:
            after = after._watch(self._replace(begun=begun), self.text, self.sent + rest)
        elif self.is_blank and not self.held.strip():
            after = after._watch(self._replace(begun=begun), "", rest)
        return rest + self.chat.closing(self.role), after

    def _given(self, text: str, written: str, held: str = "") -> tuple[str, Writing]:
        """Text that was given, what is written now, and what is held back behind it."""
        is_blank = self.is_blank and not written
        if self.text is not None and self.sent is not None:
            text, sent = self.text + text, self.sent + written
            return written, self._replace(held=held, is_blank=is_blank, text=text, sent=sent)
        if self.held == held and self.is_blank == is_blank:
            return written, self
        return written, self._replace(held=held, is_blank=is_blank)

    def _watch(self, message: Writing, text: str, sent: str) -> Writing:
        """Remember in what ways the template writes a message otherwise than it was sent."""
        past = tuple(message._differences(text, sent, is_answered=True))
        if message.role != ASSISTANT:
            return self._replace(told=self.told + past)
        unanswered = tuple(message._differences(text, sent, is_answered=False))
        return self._replace(past=self.past + past, unanswered=self.unanswered + unanswered)

    def _differences(self, text: str, sent: str, *, is_answered: bool) -> Iterable[str]:
        opening, check = self.opening, self.chat.check
        assert opening is not None and self.role is not None
        plain = opening.written if is_answered or opening.unanswered is None else opening.unanswered
        marks = [mark for mark in self.chat.rewritten.get(self.role, ()) if mark in text]
        whole = opening.common + sent
        if check is None or not (marks or not text.strip() or opening.common + self.begun != plain):
            return
        # What the template adds may also be what the model wrote itself.
        texts = {text, text.removeprefix(plain.removeprefix(opening.common + self.begun))}
        pair = (self.previous, self.role)
        if all(check.differs(pair, each, plain, whole, is_answered=is_answered) for each in texts):
            what = f"that holds {marks[0]!r}" if marks else f"so that it begins with {plain!r}"
            if not text.strip():
                what = "that is empty"
            when = "" if self.role != ASSISTANT else _PAST if is_answered else _UNANSWERED
            yield _DIFFERS.format(self.role, what, when)


_DIFFERS = "the model's chat template rewrites a message of role {!r} {}{}; here it stays as it was sent"
_PAST = " once the user has answered it"
_UNANSWERED = " until the user answers it"


def warn_of(writing: Writing) -> None:
    """Warn of what the template would write otherwise."""
    for words in dict.fromkeys(writing.told):
        warnings.warn(words, ChatTemplateWarning, stacklevel=3)


def written(
    chat: ChatFormat, messages: Iterable[tuple[str, str]], *, add_generation_prompt: bool = False
) -> tuple[str, tuple[str, ...]]:
    """A whole conversation of (role, text) pairs that the program writes, and what the user should be warned of.

    Raises Unsupported.
    """
    writing, previous, parts = Writing(chat), None, []
    for role, content in messages:
        opening, writing = writing.begin(role, previous)
        text, writing = writing.append(content)
        closing, writing = writing.end()
        parts += [opening, text, closing]
        previous = role
    if add_generation_prompt:
        opening, writing = writing.begin(ASSISTANT, previous)
        parts += [opening, writing.waiting()]
    return "".join(parts), writing.told
