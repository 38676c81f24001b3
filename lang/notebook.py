"""`%load_ext ramify`: runs of programs that are defined in cells are shown as they go, and `%ramify` takes commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .session import Session

_loaded: dict[int, tuple[Session, Any]] = {}


def load_ipython_extension(shell: Any) -> None:
    """Called by IPython. The names of the shell are those of a session; programs are watched after each cell."""
    from .commands.table import Commands
    from .session import Session

    if id(shell) in _loaded:
        return
    session = Session(sys.stdout, names=shell.user_ns)
    commands = Commands(session)

    def ramify(line: str) -> None:
        """A command of the REPL: `%ramify tree`, `%ramify passes NAME`, `%ramify ?NAME`; `%ramify help` lists them."""
        line = line.strip() or "help"
        session.watch()
        commands.do(line if line.startswith((":", "?")) else f":{line}")

    def after_cell(*_: Any) -> None:
        session.watch()

    session.watch()
    shell.register_magic_function(ramify, "line", "ramify")
    shell.events.register("post_run_cell", after_cell)
    _loaded[id(shell)] = session, after_cell


def unload_ipython_extension(shell: Any) -> None:
    """Called by IPython: cells are watched no longer."""
    _, after_cell = _loaded.pop(id(shell), (None, None))
    if after_cell is not None:
        shell.events.unregister("post_run_cell", after_cell)
