"""`:ir`, `:passes` and `:explain`: what the compiler makes of a program, and what it will cost."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.text import Text

from ...compiler.changes import Change, changes
from ...compiler.pipeline import PIPELINE, check_names, run_pipeline
from ...ir.errors import UsageError
from ...ir.printer import print_module
from ..compile_command import check_after, pass_names
from ..program import Program
from ..rendering import seconds
from ..session import Session
from .command import Command, complete_call

_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def _ir(session: Session, rest: str) -> None:
    match rest.split():
        case [name] if not name.startswith("-"):
            after = None
        case [name, "--after", after] | ["--after", after, name]:
            check_after(after)
        case _:
            raise UsageError(":ir takes the name of a program", help=IR.form)
    module = run_pipeline(session.program(name).lower().module, after=after)
    session.print(print_module(module).rstrip("\n"))


def _complete_ir(session: Session, words: Sequence[str]) -> Iterable[str]:
    return pass_names() if words[-2:-1] == ["--after"] else [*session.programs(), "--after"]


def _passes(session: Session, rest: str) -> None:
    match rest.split():
        case [name]:
            wanted = [each.name for each in PIPELINE]
        case [name, only]:
            check_names([only])
            wanted = [only]
        case _:
            raise UsageError(":passes takes the name of a program", help=PASSES.form)
    program = session.program(name)
    found = [each for each in changes(program.lower().module, program.run_options.disable) if each.name in wanted]
    for change in found:
        if change.diff:
            _print_change(session, change)
    if unchanged := [change.name for change in found if not change.diff]:
        session.print(f"changed nothing: {', '.join(unchanged)}")
    if disabled := [each for each in program.run_options.disable if each in wanted]:
        session.print(f"left out: {', '.join(disabled)}")


def _print_change(session: Session, change: Change) -> None:
    session.print(Text(f"{change.name}: {change.summary} ({seconds(change.elapsed_ms, digits=2)})", style="bold"))
    for line in change.diff:
        session.print(Text(line, style=_DIFF_STYLES.get(line[:1], "")))


def _complete_passes(session: Session, words: Sequence[str]) -> Iterable[str]:
    return session.programs() if len(words) == 1 else [each.name for each in PIPELINE] if len(words) == 2 else ()


def _explain(session: Session, rest: str) -> None:
    if not rest:
        raise UsageError(":explain takes the name of a program and its arguments", help=EXPLAIN.form)
    program, args, kwargs = program_call(session, rest)
    program.explain([_as_row(program, args, kwargs)] if args or kwargs else None).show(session.out)


def program_call(session: Session, text: str) -> tuple[Program, tuple[Any, ...], dict[str, Any]]:
    """A program and the arguments that follow its name, as in a call, with or without the parentheses.

    Raises UsageError for what is no program or no arguments, and what the arguments raise.
    """
    match = re.match(r"[\w.]+", text)
    if match is None:
        raise UsageError(f"{text.split()[0]!r} is not the name of a program", help=":explain PROGRAM [ARGUMENTS]")
    program, rest = session.program(match.group()), text[match.end() :].strip()
    call = _as_call(f"_{rest}") if rest.startswith("(") else None
    call = call or _as_call(f"_({rest})")
    if call is None:
        form = f"write them as for Python: {program.signature}"
        raise UsageError(f"these are not the arguments of a call: {rest}", help=form)
    gather = ast.Call(ast.Name("_gather", ast.Load()), call.args, call.keywords)
    code = compile(ast.fix_missing_locations(ast.Expression(gather)), "<arguments>", "eval")
    args, kwargs = eval(code, session.names, {"_gather": lambda *args, **kwargs: (args, kwargs)})
    return program, args, kwargs


def _as_call(text: str) -> ast.Call | None:
    try:
        found = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return None
    return found if isinstance(found, ast.Call) and isinstance(found.func, ast.Name) else None


def _as_row(program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name. Raises UsageError for wrong ones, and for more than have names."""
    program.signature.bind(args, kwargs)
    names = [p.name for p in program.signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(args) > len(names):
        raise UsageError(f"{program.name}: only arguments that have names can be predicted for")
    return dict(zip(names, args, strict=False)) | kwargs


IR = Command(":ir", "PROGRAM [--after PASS]", "the program's IR, after all passes or after one", _ir, _complete_ir)
PASSES = Command(":passes", "PROGRAM [PASS]", "what each pass changed in it, as a diff", _passes, _complete_passes)
EXPLAIN = Command(
    ":explain",
    "PROGRAM [ARGUMENTS]",
    "what a run would cost, without asking the model",
    _explain,
    complete_call,
)
