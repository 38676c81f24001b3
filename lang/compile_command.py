"""`ramify compile` and `ramify check`: what the compiler makes of a file's programs, without running them.

With a backend, `check` also tells what of each program the backend would refuse.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..backends import describe_backend
from ..compiler.frontend import EagerNote
from ..compiler.groups import check_groups
from ..compiler.pipeline import PIPELINE, check_names, run_pipeline
from ..compiler.portable import pack
from ..compiler.rebound import Rebound
from ..ir.codec import encode
from ..ir.core import Module
from ..ir.errors import RamifyError, UsageError, nearest
from ..ir.printer import print_module
from ..runtime.backend import Backend
from .constraints import check_constraints
from .loading import load_file, split_target
from .program import Program
from .servable import refusals


def compile_command(given: argparse.Namespace) -> int:
    """Write the IR of a program."""
    check_names(given.disable)
    check_after(given.after)
    if given.emit == "bin" and given.output is None and sys.stdout.isatty():
        raise UsageError("binary IR does not belong on a terminal", help="write it to a file with -o FILE")
    path, name = split_target(given.target)
    program = load_file(path).program(name)
    times: list[tuple[str, float, int]] = []
    lowered = program.lower()
    module = run_pipeline(
        lowered.module,
        after=given.after,
        disable=given.disable,
        on_pass=lambda each, module, elapsed_ms: times.append((each.name, elapsed_ms, _num_ops(module))),
    )
    if given.output is not None:
        pack(lowered, module)  # the file can then be loaded where the program's own file is not
    _emit(module, given.emit, given.output)
    if given.timing:
        _print_times(times)
    return 0


def pass_names() -> list[str]:
    """What --after takes."""
    return ["frontend", *(each.name for each in PIPELINE)]


def check_after(name: str | None) -> None:
    """Raises UsageError for what --after does not take."""
    if name is not None and name not in pass_names():
        raise UsageError(f"there is no pass {name!r}", help=nearest(name, pass_names(), "the passes are"))


def _emit(module: Module, form: str, output: str | None) -> None:
    # In a file the ops keep their source positions, so that what is loaded from it can point at the user's lines.
    data = encode(module) if form == "bin" else print_module(module, spans=output is not None).encode()
    if output is not None:
        try:
            Path(output).write_bytes(data)
        except OSError as error:
            raise UsageError(f"{output} cannot be written: {error.strerror}") from None
    elif form == "bin":
        sys.stdout.buffer.write(data)
    else:
        print(data.decode(), end="")


def _num_ops(module: Module) -> int:
    return sum(1 for _ in module.walk())


def _print_times(times: list[tuple[str, float, int]]) -> None:
    print(f"{'pass':<14}{'ms':>8}{'ops':>7}", file=sys.stderr)
    for name, elapsed_ms, num_ops in times:
        print(f"{name:<14}{elapsed_ms:>8.2f}{num_ops:>7}", file=sys.stderr)


def check_command(given: argparse.Namespace) -> int:
    """Compile every program of a file (or the one that is named) and say what became of it."""
    path, name = split_target(given.target)
    loaded = load_file(path)
    loaded.check_has_programs()
    programs = loaded.programs | loaded.methods if name is None else {name: loaded.program(name)}
    backend = None if given.backend is None else describe_backend(given.backend)
    return max([_check(path, name, program, backend) for name, program in programs.items()])


def _check(path: Path, name: str, program: Program, backend: Backend | None) -> int:
    try:
        lowered = program.lower()
        module = run_pipeline(lowered.module)
        check_groups(module)
        check_constraints(module, lowered.python, with_files=True)
    except RamifyError as error:
        print(f"{path}:{name}: error\n{_indented(str(error))}")
        return 2
    refused = [] if backend is None else refusals(module, lowered.python, backend)
    if any(each.is_certain for each in refused):
        print(f"{path}:{name}: not on {backend.name}")  # type: ignore[union-attr]
    else:
        print(f"{path}:{name}: {'ok, but for what runs eagerly' if lowered.eager else 'ok'}")
    for refusal in refused:
        print(_indented(str(refusal)))
    for each in lowered.rebound:
        print(_indented(_warning(each)))
    for note in lowered.eager:
        print(_indented(eager_note(note)))
    return 2 if any(each.is_certain for each in refused) else 0


def _warning(rebound: Rebound) -> str:
    span = rebound.span
    return "\n".join([str(span), *span.excerpt(), f"warning: {rebound.message}", f"help: {rebound.help}"])


def eager_note(note: EagerNote) -> str:
    """A part that runs eagerly, with its line."""
    return "\n".join([str(note.span), *note.span.excerpt(), f"runs eagerly: {note.reason}"])


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))
