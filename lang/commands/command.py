"""What a command of the REPL is: its name, what it takes, what it does, and how its words are completed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ...ir.errors import UsageError
from ..call_completion import argument_names
from ..session import Session


def _nothing(session: Session, words: Sequence[str]) -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Command:
    """A command, such as `:ir`. `usage` is how it is written, without its name; empty for one that takes nothing.

    run: called with what follows the name, stripped. complete: what may stand in the place of the last of the words
    that follow the name.
    """

    name: str
    usage: str
    summary: str
    run: Callable[[Session, str], None]
    complete: Callable[[Session, Sequence[str]], Iterable[str]] = _nothing

    @property
    def form(self) -> str:
        """The name and what it takes."""
        return f"{self.name} {self.usage}".rstrip()

    def refuse(self, rest: str) -> NoReturn:
        """Raises UsageError for words that the command does not take."""
        raise UsageError(f"{self.name} does not know what to do with {rest}", help=self.form)


def program_names(session: Session, words: Sequence[str]) -> Iterable[str]:
    """Completes the first word to the programs of the session."""
    return session.programs() if len(words) == 1 else ()


def complete_call(session: Session, words: Sequence[str]) -> Iterable[str]:
    """Completes the first word to the programs of the session, those that follow to its arguments."""
    if len(words) == 1:
        return program_names(session, words)
    try:
        own = session.program(words[0]).signature.parameters
    except UsageError:
        return ()
    found = argument_names(f"{words[0]}({' '.join(words[1:])}", session.names)
    return [name for name in found if name.rstrip("=") in own]
