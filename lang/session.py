"""A REPL session: names, the inputs typed so far, and what is done with each. Knows nothing of terminals."""

from __future__ import annotations

import ast
import builtins
import codeop
import contextlib
import linecache
import re
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from types import ModuleType
from typing import IO, Any

from .arguments import Arguments
from .failures import describe
from .loading import Loaded, syntax_error
from .options import Options
from .program import Program, Row
from .rendering import open_view, usage_line, value_text
from .run import Run
from .sglang.function import SglFunction

_CONTINUES_A_BLOCK = re.compile(r"(elif|else|except|finally)\b")


class Session:
    """Executes inputs in one namespace. Everything is written to `out`, errors too, in the order it happens."""

    def __init__(self, out: IO[str], *, debug: bool = False) -> None:
        self.out = out
        self.debug = debug
        self.last_run: Run | None = None
        self.module = ModuleType("__ramify__")
        self.names = self.module.__dict__
        door = import_module("..", __package__)
        self.names |= {name: getattr(door, name) for name in door.__all__} | {"rf": door}
        self._num_inputs = 0
        # Classes and pickles of what is typed here look their module up by name.
        sys.modules[self.module.__name__] = self.module

    def preload(self, loaded: Loaded) -> None:
        """Make the names of a file known."""
        names = vars(loaded.module)
        self._watch(names)
        self.names |= {name: value for name, value in names.items() if not name.startswith("__")}

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

    def execute(self, text: str) -> None:
        """Do what an input says; errors are shown, and the session goes on. SystemExit passes."""
        self._num_inputs += 1
        file = f"<ramify-{self._num_inputs}>"
        text = text.rstrip("\n") + "\n"
        linecache.cache[file] = (len(text), None, [f"{line}\n" for line in text.split("\n")[:-1]], file)
        with contextlib.redirect_stdout(self.out):
            self.guarded(lambda: self._execute(text, file))

    def guarded(self, action: Callable[[], None]) -> None:
        """Call `action` and show what it raises."""
        try:
            action()
        except KeyboardInterrupt:
            print("interrupted", file=self.out)
        except Exception as error:
            print(describe(error, debug=self.debug), file=self.out)
        self.out.flush()

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


class WatchedProgram(Program):
    """A program whose runs are shown while they go on, and remembered for `:tree`."""

    def __init__(self, program: Program, session: Session) -> None:
        super().__init__(program, program.run_options)
        self._session = session

    def options(self, **given: Any) -> Program:
        """See Program."""
        return WatchedProgram(super().options(**given), self._session)

    def __get__(self, instance: object, owner: type | None = None) -> Program:
        bound = super().__get__(instance, owner)
        return self if bound is self else WatchedProgram(bound, self._session)

    def finish(self, arguments: Arguments, options: Options) -> Run:
        """See Program."""
        if options.stream is not None:
            return self._remember(super().finish(arguments, options))
        view = open_view(self._session.out)
        try:
            return self._remember(super().finish(arguments, options.updated({"stream": view})))
        finally:
            view.close()

    def run_batch(self, rows: Iterable[Row], **options: Any) -> Any:
        """See Program."""
        runs = super().run_batch(rows, **options)
        if isinstance(runs, list) and runs:
            self._remember(runs[-1])
        return runs

    def _remember(self, run: Run) -> Run:
        self._session.last_run = run
        return run
