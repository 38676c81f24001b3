"""The REPL on a terminal: editing of several lines, history, completion, and Ctrl-C that keeps the session."""

from __future__ import annotations

import os
import re
import rlcompleter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition, completion_is_selected, has_completions
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.python import PythonLexer  # type: ignore[import-untyped]

from .. import __version__
from .call_completion import argument_names
from .commands.table import Commands, is_command
from .options import Options, approximation
from .repl import BANNER
from .session import Session

_INDENT = "    "


def converse(session: Session, commands: Commands) -> None:
    """Read and execute inputs until Ctrl-D."""
    prompt: PromptSession[str] = PromptSession(
        message=lambda: session.prompt,
        multiline=True,
        prompt_continuation="... ",
        history=_history(),
        completer=NameCompleter(session, commands),
        complete_while_typing=False,
        lexer=PygmentsLexer(PythonLexer),
        key_bindings=_bindings(session),
    )
    print(BANNER.format(version=__version__), file=session.out)
    if approximate := approximation(Options()):
        print(approximate, file=session.out)
    while True:
        session.say_what_changed()
        try:
            text = prompt.prompt()
        except KeyboardInterrupt:
            continue
        except EOFError:
            if session.debugger is None:
                return
            text = "q"
        if text.strip():
            commands.take(text)


def _history() -> History:
    """The user's earlier inputs; only those of this session where they cannot be kept."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "ramify"
    try:
        state.mkdir(parents=True, exist_ok=True)
        (state / "history").touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(state / "history"))


def _bindings(session: Session) -> KeyBindings:
    bindings = KeyBindings()
    choosing = has_completions & completion_is_selected

    @bindings.add("enter", filter=~choosing)
    def _(event: KeyPressEvent) -> None:
        """Enter runs a whole input; inside of one it begins a line, indented as the one before or deeper."""
        buffer = event.current_buffer
        document = buffer.document
        at_end = not document.text_after_cursor.strip()
        if at_end and is_whole(session, document.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n" + _indent_after(document.current_line_before_cursor))

    @bindings.add("tab", filter=Condition(_stands_after_space))
    def _(event: KeyPressEvent) -> None:
        """Tab where there is nothing to complete."""
        event.current_buffer.insert_text(_INDENT)

    return bindings


def is_whole(session: Session, text: str) -> bool:
    """Whether Enter at the end of the text runs it: a block runs after an empty line."""
    if not text.strip() or is_command(text) or session.debugger is not None:
        return True
    *before, last = text.split("\n")
    if not before:
        return session.is_complete(text)
    # Several lines: an empty one ends them, unless a bracket or a string is still open.
    return not last.strip() and session.parses_or_fails(text)


def _indent_after(line: str) -> str:
    lead = line[: len(line) - len(line.lstrip())]
    return lead + _INDENT if line.rstrip().endswith(":") else lead


def _stands_after_space() -> bool:
    from prompt_toolkit.application import get_app

    before = get_app().current_buffer.document.current_line_before_cursor
    return not before.strip()


class NameCompleter(Completer):
    """Completes names and attributes of the session, arguments of calls, and commands with what they take."""

    def __init__(self, session: Session, commands: Commands) -> None:
        self._session = session
        self._names = rlcompleter.Completer(session.names)
        self._commands = commands
        self._session = session

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """See prompt_toolkit."""
        line = document.text_before_cursor
        if self._session.debugger is not None and not line.startswith(":"):
            from .stepping.commands import completions

            found, word = completions(self._session.debugger, line), line.split(" ")[-1]
        elif line.startswith(":"):
            found, word = self._commands.completions(line), line.split(" ")[-1]
        else:
            match = re.search(r"[\w.]+$", line)
            word = match.group() if match else ""
            arguments = [] if "." in word else argument_names(line, self._session.names)
            found = [*arguments, *(self._matches(word) if word else [])]
        return [Completion(each, -len(word)) for each in dict.fromkeys(found) if each.startswith(word)]

    def _matches(self, word: str) -> list[str]:
        found: list[Any] = []
        try:
            while (match := self._names.complete(word, len(found))) is not None:
                found.append(match)
        except Exception:  # a property of the user's object raised while its attributes were listed
            return []
        return [match.rstrip("( ") for match in found]
