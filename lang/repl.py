"""`ramify repl`: a Python prompt that knows programs, on a terminal (console.py) or piped."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable

from ..ir.errors import UsageError, nearest
from .failures import wants_debug
from .loading import load_file, program_of, split_target
from .options import Options, set_default_backend
from .program import Program
from .session import Session

BANNER = "ramify {version}: Python with programs; :help lists the commands, Ctrl-D leaves"


def repl_command(given: argparse.Namespace) -> int:
    """Read inputs until they end. Returns the exit code. Raises what loading the file raises."""
    if given.model is not None:
        set_default_backend(given.model)
    session = Session(sys.stdout, debug=given.debug or wants_debug())
    if given.target is not None:
        path, name = split_target(given.target)
        if name is not None:
            raise UsageError(f"ramify repl takes a file, not one of its programs: {path}")
        session.preload(load_file(path))
    commands = Commands(session)
    try:
        if sys.stdin.isatty():
            from .console import converse

            converse(session, commands)
        else:
            read_lines(sys.stdin, session, commands)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def read_lines(lines: Iterable[str], session: Session, commands: Commands) -> None:
    """Execute inputs that come line by line: a block ends before a line that is not part of it.

    An empty line does not end it, since code that was written in a file has such lines inside its functions.
    """
    text = ""
    is_skipping = False
    for line in lines:
        line = line.rstrip("\r\n")
        if text and session.ends_before(text, line):
            session.execute(text)
            text = ""
        # After what is wrong for good, the rest of its block would be wrong once more, line by line.
        is_skipping = is_skipping and session.stays_in_block(line)
        if is_skipping:
            continue
        if not text and line.lstrip().startswith(":"):
            commands.do(line.strip())
            continue
        text = f"{text}\n{line}" if text else line
        if not text.strip():
            text = ""
        elif line.strip() and session.is_complete(text):
            session.execute(text)
            is_skipping = not session.parses(text)
            text = ""
    if text:
        session.execute(text)


class Commands:
    """What begins with a colon."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.table: dict[str, tuple[Callable[[list[str]], None], str]] = {
            ":ir": (self._ir, ":ir PROGRAM [--after PASS]   the program's IR"),
            ":tree": (self._tree, ":tree                        the prompt tree of the last run"),
            ":cache": (self._cache, ":cache [save FILE | load FILE | clear]   what the model has computed and keeps"),
            ":help": (self._help, ":help                        this list"),
            ":quit": (self._quit, ":quit                        leave (as Ctrl-D does)"),
        }

    def do(self, line: str) -> None:
        """Carry out a command; its errors are shown. SystemExit passes."""
        self.session.guarded(lambda: self._do(line))

    def _do(self, line: str) -> None:
        name, *words = line.split()
        if name not in self.table:
            raise UsageError(f"there is no command {name}", help=nearest(name, self.table, "the commands are"))
        self.table[name][0](words)

    def programs(self) -> dict[str, Program]:
        """The programs of the session, by name."""
        found = {name: program_of(value) for name, value in self.session.names.items()}
        return {name: program for name, program in found.items() if program is not None}

    def _ir(self, words: list[str]) -> None:
        from ..compiler.pipeline import run_pipeline
        from ..ir.printer import print_module
        from .compile_command import check_after

        name, after = _ir_words(words)
        if after is not None:
            check_after(after)
        programs = self.programs()
        if name not in programs:
            known = nearest(name, programs, "the programs are") if programs else "none is defined yet"
            raise UsageError(f"there is no program {name!r}", help=known)
        module = run_pipeline(programs[name].lower().module, after=after)
        print(print_module(module), end="", file=self.session.out)

    def _tree(self, words: list[str]) -> None:
        from .tree import print_tree

        if self.session.last_run is None:
            raise UsageError("nothing was run yet", help="run a program, as in NAME.run(...)")
        print_tree(self.session.last_run, self.session.out)

    def _cache(self, words: list[str]) -> None:
        from .cache_file import with_cache

        local = with_cache(Options().open_backend())
        match words:
            case []:
                stats = local.stats()
                said = (
                    f"{stats.cached:,} tokens cached, room for {stats.capacity:,}; {stats.hit_tokens:,} were used again"
                )
            case ["save", file]:
                said = f"{file}: {local.save_cache(file):,} tokens saved"
            case ["load", file]:
                said = f"{file}: {local.load_cache(file):,} tokens loaded"
            case ["clear"]:
                local.clear_cache()
                said = f"{local.stats().cached:,} tokens cached"
            case _:
                raise UsageError(
                    f":cache does not know what to do with {' '.join(words)}", help=self.table[":cache"][1]
                )
        print(said, file=self.session.out)

    def _help(self, words: list[str]) -> None:
        print("\n".join(summary for _, summary in self.table.values()), file=self.session.out)

    def _quit(self, words: list[str]) -> None:
        raise SystemExit(0)


def _ir_words(words: list[str]) -> tuple[str, str | None]:
    match words:
        case [name] if not name.startswith("-"):
            return name, None
        case [name, "--after", after] | ["--after", after, name]:
            return name, after
    raise UsageError(":ir takes the name of a program", help=":ir PROGRAM [--after PASS]")
