"""Loads a file of programs for the command line and the REPL, and finds the program that is meant.

The file is run as a module of its own name (so not as `__main__`), with its folder on `sys.path`, as Python does for
scripts. A folder is a package: its `__init__.py` is run, and what that imports of the folder's other files counts as
defined there. No bytecode is written for the file itself.
"""

from __future__ import annotations

import difflib
import importlib.util
import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from ..ir.codec import MAGIC
from ..ir.errors import CompileError, UntrustedCode, UsageError, nearest
from ..ir.span import Span
from .program import Program, load
from .sglang.function import SglFunction


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file that was run: its module, and the programs it defines by name, in the file's order.

    methods: those in its classes, as `Class.name`.
    """

    path: Path
    module: ModuleType
    programs: dict[str, Program]
    methods: dict[str, Program] = field(default_factory=dict)

    @property
    def load_rows(self) -> Callable[[Path], Iterable[Any]] | None:
        """The file's own reader of data, if it defines one."""
        hook = getattr(self.module, "load_rows", None)
        return hook if callable(hook) else None

    def program(self, name: str | None) -> Program:
        """The program of this name; without one, the only one or `main`. Raises UsageError that lists them."""
        if name is not None:
            return self._named(name)
        if len(self.programs) == 1:
            return next(iter(self.programs.values()))
        if "main" in self.programs:
            return self.programs["main"]
        self.check_has_programs()
        known = list(self.programs or self.methods)
        raise UsageError(
            f"{self.path} holds {len(known)} program{'s' * (len(known) > 1)}: {', '.join(known)}",
            help=f"say which one: {self.path}:{known[0]}",
        )

    def runnable(self, name: str | None) -> Program:
        """The same, but a method of instances bound to one. Raises UsageError if its class cannot make one."""
        program = self.program(name)
        if program.binds != "instance" or name is None:
            return program
        owner = getattr(self.module, name.rpartition(".")[0])
        try:
            instance = owner()
        except TypeError as error:
            raise UsageError(
                f"{name} needs an instance of {owner.__name__}, which cannot be made without arguments: {error}",
                help="write a program that makes one, and run that",
            ) from None
        return getattr(instance, program.name)  # type: ignore[no-any-return]

    def _named(self, name: str) -> Program:
        known = self.programs | self.methods
        found = known.get(name) or program_of(getattr(self.module, name, None))
        if found is not None:
            return found
        self.check_has_programs()
        raise UsageError(f"{self.path} has no program {name!r}", help=nearest(name, known, "its programs are"))

    def check_has_programs(self) -> None:
        """Raises UsageError if the file defines no program."""
        if not self.programs and not self.methods:
            raise UsageError(
                f"{self.path} defines no program",
                help="decorate a function with @rf.program; its first parameter is the state",
            )


def split_target(target: str) -> tuple[Path, str | None]:
    """FILE, FILE:PROGRAM or FILE:CLASS.PROGRAM. A colon that is part of an existing file's name stays there."""
    file, colon, name = target.rpartition(":")
    if colon and name.replace(".", "_", 1).isidentifier() and not Path(target).exists():
        return Path(file), name
    return Path(target), None


def load_file(path: Path) -> Loaded:
    """Run the file, or a folder's `__init__.py`. Raises UsageError, CompileError for a syntax error, and whatever the
    file raises.
    """
    if is_saved(path):
        raise UsageError(
            f"{path} is a saved program, not its source", help=f"to run it: ramify run {shlex.quote(str(path))} --trust"
        )
    file = _file(path)
    source = _read(file)
    module = _module(path, file)
    code = compile_source(source, str(file))
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[module.__name__] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        for name in [name for name in sys.modules if _is_in(name, module)]:
            del sys.modules[name]
        raise
    return Loaded(path, module, own_programs(module), own_methods(module))


def is_saved(path: Path) -> bool:
    """Whether a file holds a program that was compiled and saved, in either form."""
    try:
        with open(path, "rb") as file:
            head = file.read(256)
    except OSError:
        return False
    return head[:1] == MAGIC[:1] or (path.suffix != ".py" and head.lstrip().startswith(b"module @"))


def load_saved(path: Path, *, trust: bool) -> Loaded:
    """A file with a saved program. Raises UntrustedCode without `trust`, if it holds host code."""
    try:
        program = load(path, trust=trust)
    except UntrustedCode as error:
        error.help = "if you trust where it comes from, add --trust"
        raise
    return Loaded(path, ModuleType(path.stem), {program.name: program})


def _file(path: Path) -> Path:
    """The file to run: a folder's `__init__.py`, any other path itself."""
    if not path.is_dir():
        return path
    inside = path / "__init__.py"
    if inside.is_file():
        return inside
    files = sorted(path.glob("*.py"))
    raise UsageError(
        f"{path} is a folder without an __init__.py",
        help=f"name a file of programs in it, such as {files[0]}" if files else "name a file of programs",
    )


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no file {str(path)!r}", help=_near_files(path)) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return importlib.util.decode_source(data)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not Python source: {error}") from None


def _near_files(path: Path) -> str | None:
    folder = path.parent
    if not folder.is_dir():
        return None
    near = difflib.get_close_matches(path.name, [file.name for file in folder.glob("*.py")], 1)
    return f"did you mean {folder / near[0]}?" if near else None


def _module(path: Path, file: Path) -> ModuleType:
    """An empty module for the file, under a name that hides no other module; for a folder an empty package."""
    name = path.resolve().stem
    if name in sys.modules or name in sys.stdlib_module_names:
        name = f"ramify_file_{name}"
    module = ModuleType(name)
    module.__file__ = str(file)
    if file != path:
        spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(path.resolve())])
        module.__spec__, module.__path__, module.__package__ = spec, [str(path.resolve())], name
    return module


def compile_source(source: str, file: str) -> Any:
    """The code object of a whole file. Raises CompileError with the line for what is not Python."""
    try:
        return compile(source, file, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise syntax_error(error) from None
    except ValueError as error:
        raise CompileError(f"{file} is not Python source: {error}") from None


def syntax_error(error: SyntaxError) -> CompileError:
    """A SyntaxError as ramify shows errors: with the line and carets."""
    if error.filename is None or error.lineno is None:
        return CompileError(str(error))
    line, column = error.lineno, max(0, (error.offset or 1) - 1)
    end_line, end = error.end_lineno or line, (error.end_offset or 0) - 1
    if end_line < line or (end_line == line and end <= column):
        end_line, end = line, column + 1
    return CompileError(error.msg, span=Span(error.filename, line, column, end_line, end))


def own_programs(module: ModuleType) -> dict[str, Program]:
    """The programs that the module defines itself, not those that it imports."""
    found = {name: program_of(value) for name, value in vars(module).items()}
    return {
        name: program
        for name, program in found.items()
        if program is not None and _is_in(program.fn.__module__, module)
    }


def _is_in(name: str, module: ModuleType) -> bool:
    """Whether something of the module called `name` belongs to this one: it is the same, or inside the package."""
    return name == module.__name__ or (hasattr(module, "__path__") and name.startswith(f"{module.__name__}."))


def own_methods(module: ModuleType) -> dict[str, Program]:
    """The programs in the bodies of the module's own classes."""
    return {
        f"{owner.__qualname__}.{name}": program
        for owner in vars(module).values()
        if isinstance(owner, type) and _is_in(owner.__module__, module)
        for name in vars(owner)
        if (program := program_of(getattr(owner, name, None)))
        and program.fn.__qualname__.startswith(owner.__qualname__)
    }


def program_of(value: object) -> Program | None:
    """The program that a value is, or that a function of SGLang's kind runs; None for anything else."""
    program = value.program if isinstance(value, SglFunction) else value
    return program if isinstance(program, Program) else None
