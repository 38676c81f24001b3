"""Modules that run elsewhere: what a module's host code needs is packed with it, and unpacked where it is loaded.

Host code needs the names its function saw: globals and closure variables. Modules and what can be imported from them
become imports, JSON-like values become constants, functions from the program's own file become source text. Anything
else cannot travel and is refused by name.
"""

from __future__ import annotations

import builtins
import dis
import importlib
import inspect
import linecache
import textwrap
from collections.abc import Iterator, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any

from ..ir.core import Module, Op
from ..ir.errors import CompileError, DecodeError
from ..ir.files import host_code
from .frontend import Lowered

_LITERALS = (bool, int, float, str)


def pack(lowered: Lowered, module: Module) -> None:
    """Fill in the module's sources, imports and constants; a module that needs no Python gets none.

    Raises CompileError for a name that cannot travel.
    """
    if not _needs_python(lowered, module):
        return
    packing = _Packing(module)
    for name, function in lowered.python.items():
        packing.add_function(name, function)


def _needs_python(lowered: Lowered, module: Module) -> bool:
    """Whether its functions are more than what the ops say: host code, names from outside, defaults."""
    return (
        bool(host_code(module))
        or any(op.name == "py.default" or _names_globals(op) for op in module.walk())
        or any(map(_has_more_than_names, lowered.python.values()))
    )


def _names_globals(op: Op) -> bool:
    return op.name == "hint.warm" and any(isinstance(part, dict) and "global" in part for part in op.attrs["parts"])


def _has_more_than_names(function: FunctionType) -> bool:
    """Whether a function's parameters have defaults, or are of kinds that a list of names does not tell."""
    plain = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(function).parameters.values()
    is_plain = all(each.kind is plain and each.default is each.empty for each in parameters)
    return not is_plain or inspect.iscoroutinefunction(function)


class _Packing:
    """Collects what functions need. `names` maps a function to the name that its source binds."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.done: set[int] = set()

    def add_function(self, name: str, function: FunctionType) -> None:
        if id(function) in self.done:
            return
        self.done.add(id(function))
        self.module.sources[name] = _source(function)
        for used, value in surroundings(function):
            self.add_value(used, value, function)

    def add_value(self, name: str, value: Any, user: FunctionType) -> None:
        if getattr(value, "__ramify__", None) == "program":
            _refuse_attributes(name, user)
            value = value.fn
        if isinstance(value, FunctionType) and value.__module__ == user.__module__:
            self.add_function(name, value)  # what stands beside the program travels with it
        elif isinstance(value, ModuleType):
            self.module.imports[name] = value.__name__
        elif (home := _importable(value)) is not None:
            self.module.imports[name] = home
        elif isinstance(value, FunctionType):
            self.add_function(name, value)
        elif _is_literal(value):
            self.module.constants[name] = value
        else:
            raise CompileError(
                f"{user.__name__} uses {name}, a {type(value).__name__}, which cannot be saved with the program",
                help="pass it as an argument, or define it in a module that can be imported where this is loaded",
            )


# What a program has and its function has not.
_OF_PROGRAMS = ("run", "arun", "run_batch", "options", "name", "fn")


def _refuse_attributes(name: str, user: FunctionType) -> None:
    """Raises CompileError if the code uses a program otherwise than by calling it with a state: only that travels."""
    steps = list(_instructions(user.__code__))
    for before, step, after in zip([None, *steps], steps, [*steps[1:], None], strict=False):
        if step.argval != name or not step.opname.startswith("LOAD_"):
            continue
        if after is not None and after.opname in _ATTRIBUTES:
            raise _only_calls(name, f"{name}.{after.argval}", user)
        if not _is_called(before, step, after):  # it has another name from here on
            for used in steps:
                if used.opname in _ATTRIBUTES and used.argval in _OF_PROGRAMS:
                    raise _only_calls(name, f"{name} as a value, and .{used.argval}", user)


def _only_calls(name: str, use: str, user: FunctionType) -> CompileError:
    return CompileError(
        f"{user.__name__} uses {use}; of another program, only calls with a state can be saved",
        help=f"call it as {name}(state, ...), or define {name} in a module that can be imported",
    )


_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")


def _is_called(before: dis.Instruction | None, step: dis.Instruction, after: dis.Instruction | None) -> bool:
    """Whether what an instruction loads is called at once: a NULL is pushed with it then, or beside it."""
    if step.opname == "LOAD_GLOBAL":
        return bool((step.arg or 0) & 1) or (after is not None and after.opname == "PUSH_NULL")
    return any(near is not None and near.opname == "PUSH_NULL" for near in (before, after))


def surroundings(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The globals and closure variables that a function's code names, except builtins."""
    closure = inspect.getclosurevars(function).nonlocals
    names = {step.argval for step in _instructions(function.__code__) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for name in sorted(names | closure.keys()):
        if name in closure:
            yield name, closure[name]
        elif name in function.__globals__ and not hasattr(builtins, name):
            yield name, function.__globals__[name]


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    """The instructions of code and of the code nested in it."""
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)


def _importable(value: Any) -> str | None:
    """Where a value can be imported from: "module:name", unless that is a script or a REPL."""
    home, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(home, str) or not isinstance(name, str) or home == "__main__":
        return None
    try:
        found = getattr(importlib.import_module(home), name, None)
    except ImportError:
        return None
    return f"{home}:{name}" if found is value else None


def _is_literal(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_literal, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_literal(item) for key, item in value.items())
    return value is None or isinstance(value, _LITERALS)


def _source(function: FunctionType) -> str:
    """The text of a function's `def`. Raises CompileError if it does not say all that the function is."""
    if hasattr(function, "__wrapped__") or "__class__" in function.__code__.co_freevars:
        what = "is wrapped by a decorator" if hasattr(function, "__wrapped__") else "uses super() or __class__"
        raise CompileError(f"{function.__qualname__} {what}, which cannot be saved with the program")
    try:
        lines = textwrap.dedent(inspect.getsource(function.__code__)).splitlines(keepends=True)
    except OSError:
        lines = []
    first = next((i for i, line in enumerate(lines) if line.startswith(("def ", "async def "))), None)
    if first is None:
        raise CompileError(
            f"{function.__qualname__} has no `def` in a file, so it cannot be saved with the program",
            help="define it with `def`, in a file",
        )
    return "".join(lines[first:])  # decorators are not needed: the function itself is what runs


def unpack(module: Module) -> dict[str, FunctionType]:
    """Run the sources of a loaded module and return its functions. The caller has agreed to trust them.

    A function without source is known by its parameters only: what it does is in its ops.

    Raises DecodeError for an import that is not to be had here, and for a source that does not define its function.
    """
    inlined = {call.callee for op in module.walk() for call in op.inlined}
    space: dict[str, Any] = {name: _named_only(name, ()) for name in inlined}
    space |= {name: _named_only(name, each.param_names) for name, each in module.functions.items()}
    space |= {name: _import(name, home) for name, home in module.imports.items()}
    space |= module.constants
    for name, source in module.sources.items():
        file = f"<ramify module {module.entry}: {name}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        defined: dict[str, Any] = {}
        exec(compile(source, file, "exec"), space, defined)
        space |= defined if name in defined else dict.fromkeys([name], _only(defined, name))
    return {name: space[name] for name in (*inlined, *module.functions, *module.sources)}


def _named_only(name: str, param_names: Sequence[str]) -> FunctionType:
    """A function that has the name and the parameters of one of the module's, and does nothing."""
    names = tuple(param_names)
    code = (lambda: None).__code__.replace(
        co_argcount=len(names), co_nlocals=len(names), co_varnames=names, co_name=name, co_qualname=name
    )
    return FunctionType(code, {}, name)


def _only(defined: dict[str, Any], name: str) -> Any:
    """The function that a source defines; helpers compiled twice are named apart from their source."""
    if len(defined) != 1:
        raise DecodeError(f"the source of {name} defines {', '.join(defined) or 'nothing'}")
    return next(iter(defined.values()))


def _import(name: str, home: str) -> Any:
    where, _, attribute = home.partition(":")
    try:
        found = importlib.import_module(where)
        return getattr(found, attribute) if attribute else found
    except (ImportError, AttributeError) as error:
        raise DecodeError(f"the module needs {name} from {home}, which cannot be imported here: {error}") from None
