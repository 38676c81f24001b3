"""`ramify trace` and `ramify tree`: a program is run, and what it did is drawn."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from ..backends.replay.frames import is_recording
from ..backends.replay.recording import Recording
from ..ir.errors import UsageError
from .loading import is_saved, load_file, load_saved, split_target
from .parameters import parse_arguments
from .program import Program
from .recorded_timeline import recorded_timeline
from .rendering import open_view, usage_line
from .rows import Row, read_rows
from .run import Run
from .run_command import configured
from .timeline import Timeline, timeline
from .tree import PromptTrees

Pictures = Mapping[str, Callable[[], str | bytes]]
"""What makes the file of each option."""
_OF_RUNS = ("arg", "data", "model", "replay", "eager", "trust", "disable", "temperature", "max_tokens", "seed")


def trace_command(given: argparse.Namespace) -> int:
    """Write the timeline of a recording, or of the program that is named, which is run. Returns the exit code."""
    paths = _paths(given, ("html", "svg", "perfetto"))
    if is_recording(Path(given.target)):
        return _trace_recording(given, paths)
    runs = _runs(given, sys.stdout)
    return _write_all(paths, _pictures(timeline(runs)), runs)


def _trace_recording(given: argparse.Namespace, paths: Mapping[str, Path]) -> int:
    """Write the timeline of a recording, for which nothing is run."""
    for option in _OF_RUNS:
        value = getattr(given, option)
        if not (value is None or value is False or value == []):
            name = f"--{option.replace('_', '-')}"
            raise UsageError(f"{name} is about a run, and {given.target} is a recording, of which nothing is run")
    found = recorded_timeline(Recording(given.target))
    for option, path in paths.items():
        write_picture(path, _pictures(found)[option]())
        print(f"{path}: {option} of {_counted(len(found.runs))}")
    return 0


def _pictures(found: Timeline) -> Pictures:
    return {"html": found.html, "svg": found.svg, "perfetto": found.perfetto}


def tree_command(given: argparse.Namespace) -> int:
    """Run the program that is named, and write the tree of its prompts. Returns the exit code."""
    paths = _paths(given, ("html", "svg"))
    if "svg" in paths and given.data is not None:
        raise UsageError("--svg draws the tree of one run, and --data makes many", help="use --html")
    runs = _runs(given, sys.stdout)
    trees = PromptTrees(runs)
    return _write_all(paths, {"html": trees.html, "svg": trees.svg}, runs)


def _paths(given: argparse.Namespace, options: tuple[str, ...]) -> dict[str, Path]:
    """The files that are asked for, by option. Raises UsageError for none, before anything runs."""
    paths = {option: Path(getattr(given, option)) for option in options if getattr(given, option) is not None}
    if not paths:
        names = " or ".join(f"--{option} FILE" for option in options)
        raise UsageError(f"ramify {given.command} has nothing to write", help=f"say where: {names}")
    for path in paths.values():
        if not path.parent.is_dir():
            raise UsageError(f"{path} cannot be written: there is no folder {str(path.parent)!r}")
        if path.is_dir():
            raise UsageError(f"{path} cannot be written: it is a folder")
    return paths


def _runs(given: argparse.Namespace, out: IO[str]) -> list[Run]:
    """Run the program, once or over the rows of --data. Runs that fail are among them."""
    path, name = split_target(given.target)
    if is_recording(path):
        how = f"ramify {given.command} FILE --replay {path}, with the program's file, plays it"
        raise UsageError(f"{path} is a recording, which holds answers and no program", help=how)
    loaded = load_saved(path, trust=given.trust) if is_saved(path) else load_file(path)
    program = configured(loaded.runnable(name), given)
    shared = parse_arguments(program, given.arg)
    if given.data is not None:
        rows = [{**shared, **row} for row in read_rows(Path(given.data), loaded)]
        return program.run_batch(rows, max_in_flight=given.in_flight)
    program.signature.bind((), shared)
    return _run_shown(program, shared, given, out)


def _run_shown(program: Program, arguments: Row, given: argparse.Namespace, out: IO[str]) -> list[Run]:
    """One run, shown as it goes unless --quiet says otherwise."""
    view = None if given.quiet else open_view(out)
    try:
        runs = program.run_batch([arguments], stream=view)
    finally:
        if view is not None:
            view.close()
    if view is not None:
        print(usage_line(runs[0].usage), file=out)
    return runs


def _write_all(paths: Mapping[str, Path], pictures: Pictures, runs: list[Run]) -> int:
    """Write the files, also of runs that failed, and say so. Raises the error of a single run."""
    for option, path in paths.items():
        write_picture(path, pictures[option]())
        print(f"{path}: {option} of {_counted(len(runs))}")
    failed = [run.error for run in runs if run.error is not None]
    if len(runs) == 1 and failed:
        raise failed[0]
    if failed:
        print(f"{len(failed):,} of {len(runs):,} rows failed, the first with {type(failed[0]).__name__}: {failed[0]}")
    return 1 if failed else 0


def _counted(num_runs: int) -> str:
    return f"{num_runs:,} {'run' if num_runs == 1 else 'runs'}"


def write_picture(path: Path, content: str | bytes) -> None:
    """Write a file. Raises UsageError where that cannot be."""
    try:
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
