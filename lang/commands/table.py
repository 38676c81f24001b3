"""All commands of the REPL by name, and what is done with a line that begins with a colon."""

from __future__ import annotations

from collections.abc import Iterable

from ...ir.errors import UsageError, nearest
from ..session import Session
from .cache import CACHE
from .command import Command
from .programs import EXPLAIN, IR, PASSES
from .runs import TIME, TREE, USAGE
from .tokens import TOKENS


class Commands:
    """What begins with a colon."""

    def __init__(self, session: Session) -> None:
        self.session = session
        known = (IR, PASSES, EXPLAIN, TREE, TOKENS, USAGE, TIME, CACHE)
        own = (Command(":help", "", "this list", self._help), Command(":quit", "", "leave, as Ctrl-D does", _quit))
        self.table = {command.name: command for command in (*known, *own)}

    def do(self, line: str) -> bool:
        """Carry out a command; its errors are shown. Gives whether there was none. SystemExit passes."""
        return self.session.guarded(lambda: self._do(line))

    def _do(self, line: str) -> None:
        name, _, rest = line.partition(" ")
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

    def _help(self, session: Session, rest: str) -> None:
        width = max(len(command.form) for command in self.table.values())
        for command in self.table.values():
            session.print(f"{command.form:<{width}}  {command.summary}")


def _quit(session: Session, rest: str) -> None:
    raise SystemExit(0)
