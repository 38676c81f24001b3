"""A REPL session: names, the inputs typed so far, and what is done with each. Knows nothing of terminals."""

from __future__ import annotations

import ast
import builtins
import codeop
import contextlib
import linecache
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..ir.errors import UsageError, nearest
from .arguments import Arguments
from .failures import describe
from .loaded_file import LoadedFile
from .loading import load_file, program_of, syntax_error
from .options import Options
from .program import Program, Row
from .rendering import View, open_view, seconds, usage_line, value_text
from .run import Run
from .run_log import RunLog
from .sglang.function import SglFunction

if TYPE_CHECKING:
    from .stepping.debugger import Debugger
    from .tape import Tape

_UNBOUNDED = 100_000
_CONTINUES_A_BLOCK = re.compile(r"(elif|else|except|finally)\b")


class Session:
    """Executes inputs in one namespace. Everything is written to `out`, errors too, in the order it happens."""

    def __init__(self, out: IO[str], *, debug: bool = False, names: dict[str, Any] | None = None) -> None:
        """names: a notebook's, which are shared with it; without, ramify's own to begin with."""
        self.out = out
        self.debug = debug
        self.last_run: Run | None = None
        self.log = RunLog()
        self.files: dict[Path, LoadedFile] = {}
        # What was typed, and whether it is Python that has worked.
        self.inputs: list[tuple[str, bool]] = []
        self.settings: dict[str, Any] = {}
        self.shows_times = False
        # The program that is stepped, if one is, and the one that was stepped to its end last.
        self.debugger: Debugger | None = None
        self.stepped: Debugger | None = None
        # What runs are recorded to or played from, if anything.
        self.tape: Tape | None = None
        self._view: View | None = None
        self._num_inputs = 0
        self.names = _own_names() if names is None else names

    def load(self, path: Path) -> list[str]:
        """Run a file, also once more, and take over its names; gives those of its programs. Raises as load_file does.

        Of a file that was loaded before, names that are gone from it are gone here, unless they were given something
        else.
        """
        path = path.resolve()
        before = self.files.get(path)
        loaded = load_file(path) if before is None else before.reload()
        for name, value in before.names.items() if before is not None else ():
            if self.names.get(name) is value:
                del self.names[name]
        names = vars(loaded.module)
        self._watch(names)
        own = {name: value for name, value in names.items() if not name.startswith("__")}
        self.files[path] = LoadedFile(path, loaded, own)
        self.names |= own
        return list(loaded.programs)

    def say_what_changed(self) -> None:
        """Tell of loaded files that are others on disk by now, of each change once."""
        for file in self.files.values():
            if file.has_new_change():
                self.print(f"{file.path.name} has changed on disk; :reload runs it again")

    def watch(self) -> None:
        """Have the programs that there are by now show their runs here."""
        self._watch(self.names)

    def programs(self) -> dict[str, Program]:
        """The programs of the session, by name."""
        found = {name: program_of(value) for name, value in self.names.items()}
        return {name: program for name, program in found.items() if program is not None}

    def program(self, name: str) -> Program:
        """The program of this name; of one with dots, what the attributes lead to. Raises UsageError."""
        first, *attributes = name.split(".")
        value: Any = self.names.get(first)
        for attribute in attributes:
            value = getattr(value, attribute, None)
        found = program_of(value)
        if found is None:
            programs = self.programs()
            known = nearest(name, programs, "the programs are") if programs else "none is defined yet"
            raise UsageError(f"there is no program {name!r}", help=known)
        return found

    def latest_run(self) -> Run:
        """The run that was made or shown last. Raises UsageError if there is none."""
        if self.last_run is None:
            raise UsageError("nothing was run yet", help="run a program, as in NAME.run(...)")
        return self.last_run

    def remember(self, program: str, run: Run) -> Run:
        """A run of a program has ended: number it."""
        self.log.add(program, run)
        self.last_run = run
        return run

    @property
    def prompt(self) -> str:
        """What stands before an input."""
        if self.debugger is None:
            return ">>> "
        from .stepping.showing import prompt_line

        return prompt_line(self.debugger.scene)

    @property
    def width(self) -> int:
        """How many characters a table may be wide."""
        return Console(file=self.out).width if self.out.isatty() else _UNBOUNDED

    def print(self, shown: str | Text | Table) -> None:
        """Write a line, or a table that is as wide as the terminal; in colour there."""
        console = Console(file=self.out, highlight=False, markup=False, width=self.width)
        console.print(shown, soft_wrap=not isinstance(shown, Table))

    @contextlib.contextmanager
    def showing(self) -> Iterator[View]:
        """A view of a run. Runs that go on inside of it, from its program or other threads, are shown in the same."""
        outer = self._view
        view = self._view = open_view(self.out) if outer is None else outer.within()
        try:
            yield view
        finally:
            self._view = outer
            view.close()

    def is_complete(self, text: str) -> bool:
        """Whether the text is a whole input; what is wrong for good counts as whole."""
        try:
            return codeop.compile_command(text, "<input>", "single") is not None
        except (SyntaxError, ValueError, OverflowError):
            return True

    def parses_or_fails(self, text: str) -> bool:
        """Whether no bracket, string or block head is left open at the end of the text."""
        try:
            return codeop.compile_command(text, "<input>", "exec") is not None
        except (SyntaxError, ValueError, OverflowError):
            return True

    def parses(self, text: str) -> bool:
        """Whether the text is Python."""
        try:
            ast.parse(text)
        except (SyntaxError, ValueError):
            return False
        return True

    def ends_before(self, text: str, line: str) -> bool:
        """Whether the block in `text` ends because `line`, which comes next, belongs to no block."""
        return not self.stays_in_block(line) and self.is_complete(text + "\n")

    def stays_in_block(self, line: str) -> bool:
        """Whether a line may belong to a block that was begun before it."""
        return not line or line[0].isspace() or line.startswith("#") or bool(_CONTINUES_A_BLOCK.match(line))

    def execute(self, text: str) -> bool:
        """Do what an input says; errors are shown, and the session goes on. SystemExit passes.

        Gives whether there was no error.
        """
        self._num_inputs += 1
        file = f"<ramify-{self._num_inputs}>"
        text = text.rstrip("\n") + "\n"
        linecache.cache[file] = (len(text), None, [f"{line}\n" for line in text.split("\n")[:-1]], file)
        started = time.perf_counter()
        number = len(self.inputs)
        self.inputs.append((text, False))
        is_fine = self.guarded(lambda: self._execute(text, file))
        self.inputs[number] = (text, is_fine)
        if self.shows_times:
            self.print(f"time: {seconds((time.perf_counter() - started) * 1000, digits=2)}")
        return is_fine

    def guarded(self, action: Callable[[], None]) -> bool:
        """Call `action`, with `out` as its stdout, and show what it raises; gives whether it raised nothing."""
        is_fine = False
        try:
            with contextlib.redirect_stdout(self.out):
                action()
            is_fine = True
        except KeyboardInterrupt:
            print("interrupted", file=self.out)
        except Exception as error:
            print(describe(error, debug=self.debug), file=self.out)
        self.out.flush()
        return is_fine

    def _execute(self, text: str, file: str) -> None:
        try:
            tree = ast.parse(text, file)
        except SyntaxError as error:
            raise syntax_error(error) from None
        previous, sys.displayhook = sys.displayhook, self.show
        try:
            for statement in tree.body:
                self._execute_statement(statement, file)
        finally:
            sys.displayhook = previous

    def _execute_statement(self, statement: ast.stmt, file: str) -> None:
        try:
            code = compile(ast.Interactive([statement]), file, "single", dont_inherit=True)
        except SyntaxError as error:
            raise syntax_error(error) from None
        exec(code, self.names)
        self._watch(self.names)

    def _watch(self, names: dict[str, Any]) -> None:
        """Have the programs among the names show their runs here."""
        for name, value in list(names.items()):
            if type(value) is Program:
                names[name] = WatchedProgram(value, self)
            elif isinstance(value, SglFunction) and type(value.program) is Program:
                names[name] = SglFunction(WatchedProgram(value.program, self), value.bind_arguments)

    def show(self, value: object) -> None:
        """Print an input's value, as Python does; of a run, its value and what it used."""
        if value is None:
            return
        builtins._ = value  # type: ignore[attr-defined]
        if isinstance(value, Run):
            self.last_run = value
            if value.value is not None:
                print(f"value: {value_text(value.value)}", file=self.out)
            print(usage_line(value.usage), file=self.out)
        else:
            print(repr(value), file=self.out)


def _own_names() -> dict[str, Any]:
    """The namespace of a new module, with all public names. Classes and pickles look the module up by its name."""
    module = ModuleType("__ramify__")
    door = import_module("..", __package__)
    sys.modules[module.__name__] = module
    module.__dict__.update({name: getattr(door, name) for name in door.__all__}, rf=door)
    return module.__dict__


class WatchedProgram(Program):
    """A program whose runs are shown while they go on, and remembered.

    The session's settings hold for it, but for options that were `set` in the session.
    """

    def __init__(self, program: Program, session: Session, said: frozenset[str] = frozenset()) -> None:
        self._session = session
        self._said = said
        super().__init__(program, program.run_options)

    @property
    def _options(self) -> Options:
        settings = {name: value for name, value in self._session.settings.items() if name not in self._said}
        options = self._own_options.updated(settings) if settings else self._own_options
        # So that each run can be edited.
        return replace(options, record=True) if options.record is None else options

    @_options.setter
    def _options(self, options: Options) -> None:
        self._own_options = options

    def options(self, **given: Any) -> Program:
        """See Program."""
        changed = Program(self.fn, self._own_options.updated(given), self._cache, self._receiver)
        return WatchedProgram(changed, self._session, self._said | given.keys())

    def __get__(self, instance: object, owner: type | None = None) -> Program:
        bound = super().__get__(instance, owner)
        return self if bound is self else WatchedProgram(bound, self._session, self._said)

    def finish(self, arguments: Arguments, options: Options) -> Run:
        """See Program."""
        if options.stream is not None:
            return self._session.remember(self.name, super().finish(arguments, options))
        with self._session.showing() as view:
            return self._session.remember(self.name, super().finish(arguments, options.updated({"stream": view})))

    async def afinish(self, arguments: Arguments, options: Options) -> Run:
        """See Program. Such runs may go on at once, and are not shown while they do."""
        return self._session.remember(self.name, await super().afinish(arguments, options))

    def run_batch(self, rows: Iterable[Row], **options: Any) -> Any:
        """See Program."""
        if options.get("as_completed"):
            told = options.get("on_result")

            def on_result(number: int, run: Run) -> None:
                self._session.remember(self.name, run)
                if told is not None:
                    told(number, run)

            return super().run_batch(rows, **options | {"on_result": on_result})
        runs = super().run_batch(rows, **options)
        for run in runs:
            self._session.remember(self.name, run)
        return runs
