"""`ramify run --data`: a program over the rows of a file, with an output that survives whatever happens."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from ..runtime.context import Usage
from .journal import Journal
from .loading import Loaded
from .options import default_backend
from .plain import to_json
from .program import Program
from .progress import shown_progress
from .rendering import usage_line
from .rows import fingerprint, read_rows
from .run import Run
from .run_command import run_record

Record = dict[str, Any]


def run_data(loaded: Loaded, program: Program, shared: dict[str, Any], given: argparse.Namespace, out: IO[str]) -> int:
    """Run over the rows of `given.data`; `shared` are arguments of every row that does not have its own.

    Returns the exit code: 1 if a row has failed. Raises UsageError before anything runs.
    """
    rows = [{**shared, **row} for row in read_rows(Path(given.data), loaded)]
    for number, row in enumerate(rows):
        program.signature.bind((), row, number)
    if not given.eager:
        program.compile()
    if given.out is None:
        return _to_stdout(program, rows, given, out)
    return _to_file(loaded, program, rows, given, out)


def _to_stdout(program: Program, rows: list[Record], given: argparse.Namespace, out: IO[str]) -> int:
    waiting: dict[int, bytes] = {}
    told = 0

    def add(row: int, record: Record) -> None:
        nonlocal told
        waiting[row] = to_json({"row": row, **record})
        while told in waiting:
            print(waiting.pop(told).decode(), file=out, flush=True)
            told += 1

    tally = _run_rows(program, rows, range(len(rows)), add, given)
    _tell_end(tally, f"{_counted(len(rows))}, {tally.failed} failed", given.quiet)
    return 1 if tally.failed else 0


def _to_file(loaded: Loaded, program: Program, rows: list[Record], given: argparse.Namespace, out: IO[str]) -> int:
    program._options.open_backend()  # a model that cannot be loaded must not cost an earlier output
    identity = fingerprint(loaded, program.name, rows, _options(given))
    with Journal(Path(given.out), len(rows), identity) as journal:
        (journal.resume if given.resume else journal.overwrite if given.overwrite else journal.begin)()
        left = [row for row in range(len(rows)) if row not in journal.finished]
        if given.resume and not given.quiet:
            print(f"{journal.out}: {len(journal.finished)} of {_counted(len(rows))} were finished", file=sys.stderr)
        try:
            tally = _run_rows(program, rows, left, journal.add, given, journal.num_failed)
        except KeyboardInterrupt:
            finished = f"{len(journal.finished)} of {_counted(len(rows))} are finished, in {journal.part}"
            raise KeyboardInterrupt(f"interrupted: {finished}\n  help: go on with: {_resuming(given.words)}") from None
        failed = journal.num_failed
        journal.complete()
    _tell_end(tally, f"{journal.out}: {_counted(len(rows))}, {failed} failed", given.quiet)
    if given.json:
        report = {"out": journal.out, "rows": len(rows), "failed": failed, "usage": tally.usage}
        print(to_json(report).decode(), file=out)
    return 1 if failed else 0


class _Tally:
    """What the rows of this run used and how they ended."""

    def __init__(self, failed: int) -> None:
        self.failed = failed
        self.usage = Usage()
        self.first_error = ""
        self._started = time.perf_counter()

    def add(self, row: int, run: Run) -> None:
        """Count a finished row."""
        for name in ("prompt_tokens", "cached_tokens", "generated_tokens", "calls"):
            setattr(self.usage, name, getattr(self.usage, name) + getattr(run.usage, name))
        self.usage.wall_ms = (time.perf_counter() - self._started) * 1000
        if run.error is not None:
            self.failed += 1
            self.first_error = self.first_error or f"row {row}: {type(run.error).__name__}: {run.error}"


def _run_rows(
    program: Program,
    rows: list[Record],
    numbers: Sequence[int],
    add: Callable[[int, Record], None],
    given: argparse.Namespace,
    failed_before: int = 0,
) -> _Tally:
    """Run the rows of these numbers; `add` gets each one's record as it finishes."""
    tally = _Tally(failed_before)
    finished = len(rows) - len(numbers)
    with shown_progress(len(rows), finished, given.quiet) as show:

        def receive(index: int, run: Run) -> None:
            nonlocal finished
            add(numbers[index], run_record(run))
            tally.add(numbers[index], run)
            finished += 1
            show(finished, tally.failed)

        chosen = [rows[number] for number in numbers]
        program.run_batch(chosen, on_result=receive, max_in_flight=given.in_flight)
    return tally


def _tell_end(tally: _Tally, what: str, quiet: bool) -> None:
    if tally.failed or not quiet:
        print(what, file=sys.stderr)
    if tally.first_error:
        print(f"the first to fail in this run was {tally.first_error}", file=sys.stderr)
    if not quiet:
        print(usage_line(tally.usage), file=sys.stderr)


def _options(given: argparse.Namespace) -> Record:
    """The options that results depend on."""
    model = str(given.model if given.model is not None else default_backend())
    if Path(model).is_dir():
        model = str(Path(model).resolve())
    return {"model": model, "temperature": given.temperature, "max_tokens": given.max_tokens, "seed": given.seed}


def _counted(number: int) -> str:
    return "1 row" if number == 1 else f"{number} rows"


def _resuming(words: Sequence[str]) -> str:
    return shlex.join(["ramify", *(word for word in words if word not in ("--resume", "--overwrite")), "--resume"])
