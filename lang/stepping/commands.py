"""What is typed while a program is stepped: `n`, `s`, `c`, `b` and the others."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from ...ir.errors import UsageError, nearest
from ...runtime.program_steps import KINDS
from ..session import Session
from . import showing
from .attempt import Heard
from .breakpoints import listed
from .debugger import Debugger


@dataclass(frozen=True, slots=True)
class StepCommand:
    """A command. names: the short one first. usage: what it takes, empty for nothing."""

    names: tuple[str, ...]
    usage: str
    summary: str
    run: Callable[[Session, Debugger, str], None]

    @property
    def form(self) -> str:
        """How it is written."""
        return f"{self.names[0]} {self.usage}".rstrip()


def take(session: Session, line: str) -> None:
    """Do what a line says. Raises UsageError for one that says nothing, and what the program raises at its end.

    Ctrl-C ends the program, and with it the stepping.
    """
    debugger = session.debugger
    assert debugger is not None
    match = re.match(r"(b-|\w+|\?)", line.strip())
    command = _TABLE.get(match.group()) if match is not None else None
    if command is None:
        word = line.split()[0]
        known = nearest(word, _TABLE) if word.isidentifier() and len(word) > 2 else ""
        raise UsageError(f"{word!r} is nothing to do while a program is stepped", help=known or _HELP)
    assert match is not None
    rest = line.strip()[match.end() :].strip()
    if rest and not command.usage:
        raise UsageError(f"{command.form} takes nothing, so not {rest!r} either", help=_HELP)
    try:
        command.run(session, debugger, rest)
    except KeyboardInterrupt:
        leave(session)
        raise


_HELP = "h lists the commands; p EXPRESSION evaluates"


def begin(session: Session, debugger: Debugger) -> None:
    """Come to the first step of a program. Breakpoints are kept that were set when it was stepped before."""
    before, session.debugger = session.stepped, debugger
    try:
        debugger.begin()
    except BaseException:
        leave(session)
        raise
    _tell(session, debugger)
    if before is not None and before.program.fn is debugger.program.fn and debugger.halt is not None:
        for each in before.breakpoints:
            with contextlib.suppress(UsageError):  # the program is another by now
                _break(session, debugger, each.told)


def reopen(session: Session, debugger: Debugger) -> None:
    """Go back into a program that has ended, to its last step."""
    session.debugger = debugger
    try:
        debugger.reopen()
    except BaseException:
        leave(session)
        raise
    _tell_again(session, debugger)


def leave(session: Session) -> None:
    """End the run that is stepped, if one is."""
    debugger, session.debugger = session.debugger, None
    if debugger is not None:
        session.stepped = debugger
        debugger.quit()


def _tell(session: Session, debugger: Debugger) -> None:
    """Say where the program stands; of one that has ended, what came of it. Raises the error that it ended with."""
    if debugger.halt is not None:
        _print(session, showing.halted(debugger.halt))
        return
    session.debugger, session.stepped = None, debugger
    run = session.remember(debugger.program.name, debugger.run)
    if run.error is not None:
        run.error.add_note(":step goes back into it")
        raise run.error
    session.show(run)


def hear(session: Session, heard: Heard) -> None:
    """Say what was answered."""
    _print(session, showing.news(heard))


def _print(session: Session, lines: Iterable[Text | str]) -> None:
    for line in lines:
        session.print(line)


def _next(session: Session, debugger: Debugger, rest: str) -> None:
    debugger.next()
    _tell(session, debugger)


def _step(session: Session, debugger: Debugger, rest: str) -> None:
    debugger.step()
    _tell(session, debugger)


def _go_on(session: Session, debugger: Debugger, rest: str) -> None:
    debugger.go_on()
    _tell(session, debugger)


def _back(session: Session, debugger: Debugger, rest: str) -> None:
    if rest and not (rest.isdigit() and int(rest)):
        raise UsageError(f"back takes a number of steps, not {rest}", help="back [NUMBER]")
    debugger.back(int(rest or 1))
    _tell_again(session, debugger)


def _tell_again(session: Session, debugger: Debugger) -> None:
    """Say where the program stands that was run again, and what it asked for again."""
    _print(session, debugger.notes)
    debugger.notes.clear()
    _tell(session, debugger)


def _break(session: Session, debugger: Debugger, rest: str) -> None:
    if not rest:
        _print(session, listed(debugger.breakpoints))
    else:
        made = debugger.add_breakpoint(rest)
        session.print(f"breakpoint {made.number}: {made.told}")


def _delete(session: Session, debugger: Debugger, rest: str) -> None:
    if not rest.isdigit():
        raise UsageError("b- takes the number of a breakpoint", help="b lists them")
    debugger.delete_breakpoint(int(rest))


def _evaluate(session: Session, debugger: Debugger, rest: str) -> None:
    if not rest:
        raise UsageError("p takes an expression", help="p EXPRESSION")
    session.print(repr(debugger.scene.evaluate(rest)))


def _where(session: Session, debugger: Debugger, rest: str) -> None:
    _print(session, showing.where(debugger.scene))


def _move(session: Session, debugger: Debugger, by: int) -> None:
    scene = debugger.scene
    alive = scene.branches
    at = next(number for number, each in enumerate(alive) if each.branch == scene.selected.branch)
    if not 0 <= at + by < len(alive):
        raise UsageError(f"there is no branch {'after' if by > 0 else 'before'} this one")
    scene.selected = alive[at + by]
    _print(session, showing.branches(scene))


def _up(session: Session, debugger: Debugger, rest: str) -> None:
    _move(session, debugger, -1)


def _down(session: Session, debugger: Debugger, rest: str) -> None:
    _move(session, debugger, 1)


def _set(session: Session, debugger: Debugger, rest: str) -> None:
    session.print(debugger.set(rest))


def _quit(session: Session, debugger: Debugger, rest: str) -> None:
    leave(session)


def _help(session: Session, debugger: Debugger, rest: str) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for command in COMMANDS:
        table.add_row(Text(command.form), Text(command.summary))
    session.print(table)


COMMANDS = (
    StepCommand(("n", "next"), "", "to the next step here, over the programs that are called", _next),
    StepCommand(("s", "step"), "", "to the next step, also of a program that is called", _step),
    StepCommand(("c", "continue"), "", "to the next breakpoint, or the end", _go_on),
    StepCommand(
        ("b", "break"),
        "[LINE | OP | NAME [if EXPRESSION]]",
        "stop there, if the condition holds; alone, list the breakpoints",
        _break,
    ),
    StepCommand(("b-",), "NUMBER", "delete a breakpoint", _delete),
    StepCommand(("p", "print"), "EXPRESSION", "its value, with the program's variables and generated texts", _evaluate),
    StepCommand(("set",), "NAME = VALUE", "go on with another value of a variable, or another text", _set),
    StepCommand(("back",), "[NUMBER]", "one step back, or so many", _back),
    StepCommand(("w", "where"), "", "the line, the op and the calls that led here", _where),
    StepCommand(("u", "up"), "", "look at the branch before this one", _up),
    StepCommand(("d", "down"), "", "look at the branch after this one", _down),
    StepCommand(("q", "quit"), "", "end the program here", _quit),
    StepCommand(("h", "help", "?"), "", "this list", _help),
)
_TABLE = {name: command for command in COMMANDS for name in command.names}


def completions(debugger: Debugger, line: str) -> Iterable[str]:
    """What may stand in the place of a line's last word."""
    first, *words = line.split(" ")
    if not words:
        return [command.names[0] for command in COMMANDS]
    if first in ("b", "break") and len(words) == 1:
        return [*KINDS, *debugger.known.variables, *debugger.known.functions]
    scene = debugger.scene
    return [*scene.variables, *scene.generated] if first in ("p", "print", "set") else ()
