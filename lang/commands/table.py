"""All commands of the REPL by name, and what is done with an input: a command, `?NAME`, or Python."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from ...ir.errors import UsageError, nearest
from ..session import Session
from .cache import CACHE
from .command import Command
from .comparing import DIFF, RUNS
from .editing import EDIT, RETRY
from .files import LOAD, RELOAD, SAVE
from .help import show_help
from .programs import EXPLAIN, IR, PASSES
from .recording import RECORD, REPLAY
from .runs import TIME, TREE, USAGE
from .settings import SET
from .stepping import STEP
from .tokens import TOKENS

_GROUPS = (
    (IR, PASSES, EXPLAIN, STEP),
    (TREE, TOKENS, USAGE, TIME, RUNS, DIFF),
    (EDIT, RETRY, RECORD, REPLAY),
    (CACHE, SET),
    (LOAD, RELOAD, SAVE),
)


def is_command(line: str) -> bool:
    """Whether an input that begins with this line is no Python."""
    return line.lstrip().startswith((":", "?"))


class Commands:
    """What begins with a colon, and help by `?`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        known = [command for group in _GROUPS for command in group]
        own = (
            Command("?", "[NAME | COMMAND]", "what a name stands for, such as a program", self._explain_name),
            Command(":help", "", "this list", self._help),
            Command(":quit", "", "leave, as Ctrl-D does", _quit),
        )
        self.table = {command.name: command for command in (*known, *own)}

    def take(self, text: str) -> bool:
        """Do what an input says; errors are shown. Gives whether there was none. SystemExit passes."""
        if is_command(text):
            return self.do(text.strip())
        return self.session.execute(text) if self.session.debugger is None else self._go_through(text.strip())

    def _go_through(self, line: str) -> bool:
        """Do what is said to a program that is stepped, likewise."""
        from ..stepping.commands import take

        self.session.inputs.append((line, False))
        return self.session.guarded(lambda: take(self.session, line))

    def do(self, line: str) -> bool:
        """Carry out a command, likewise."""
        self.session.inputs.append((line, False))
        return self.session.guarded(lambda: self._do(line))

    def _do(self, line: str) -> None:
        name, _, rest = (line[:1], "", line[1:]) if line.startswith("?") else line.partition(" ")
        if self.session.debugger is not None and name not in self.table:  # as they are written in notebooks
            from ..stepping.commands import take

            return take(self.session, line.removeprefix(":"))
        if name not in self.table:
            raise UsageError(f"there is no command {name}", help=nearest(name, self.table, "the commands are"))
        command, rest = self.table[name], rest.strip()
        if rest and not command.usage:
            command.refuse(rest)
        command.run(self.session, rest)

    def completions(self, line: str) -> Iterable[str]:
        """What may stand in the place of a line's last word (words part at single spaces)."""
        name, *words = line.split(" ")
        if not words:
            return [f"{each.name} " if each.usage else each.name for each in self.table.values()]
        return self.table[name].complete(self.session, words) if name in self.table else ()

    def _explain_name(self, session: Session, rest: str) -> None:
        if not rest:
            self._help(session, rest)
        elif rest.startswith(":"):
            if rest not in self.table:
                raise UsageError(f"there is no command {rest}", help=nearest(rest, self.table, "the commands are"))
            session.print(f"{self.table[rest].form}  {self.table[rest].summary}")
        else:
            show_help(session, rest)

    def _help(self, session: Session, rest: str) -> None:
        table = Table(box=None, show_header=False, pad_edge=False)
        for command in self.table.values():
            table.add_row(Text(command.form), Text(command.summary))
        session.print(table)


def _quit(session: Session, rest: str) -> None:
    raise SystemExit(0)
