"""`ramify run --data`: a program over the rows of a file, with an output that survives whatever happens."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from .batch import Batch
from .loading import Loaded
from .plain import to_json
from .program import Program
from .progress import Tally, shown
from .records import run_record
from .rows import read_rows
from .run import Run
from .run_command import summary

Record = dict[str, Any]


def run_data(loaded: Loaded, program: Program, shared: dict[str, Any], given: argparse.Namespace, out: IO[str]) -> int:
    """Run over the rows of `given.data`; `shared` are arguments of every row that does not have its own.

    Returns the exit code: 1 if a row has failed. Raises UsageError before anything runs.
    """
    rows = [{**shared, **row} for row in read_rows(Path(given.data), loaded)]
    return _to_stdout(program, rows, given, out) if given.out is None else _to_file(program, rows, given, out)


def _to_stdout(program: Program, rows: list[Record], given: argparse.Namespace, out: IO[str]) -> int:
    waiting: dict[int, bytes] = {}
    told = 0

    def write(row: int, run: Run) -> None:
        nonlocal told
        waiting[row] = to_json({"row": row, **run_record(run)})
        while told in waiting:
            print(waiting.pop(told).decode(), file=out, flush=True)
            told += 1

    batch = program.run_batch(rows, as_completed=True, max_in_flight=given.in_flight, on_result=write)
    first_error = _run(batch, given.quiet)
    used = "" if given.quiet else summary(batch.tally.usage, program)
    _tell_end(batch.tally, batch.tally.rows(), first_error, used)
    return 1 if batch.tally.failed else 0


def _to_file(program: Program, rows: list[Record], given: argparse.Namespace, out: IO[str]) -> int:
    batch = program.run_batch(
        rows,
        as_completed=True,
        max_in_flight=given.in_flight,
        out=given.out,
        resume=given.resume,
        overwrite=given.overwrite,
    )
    tally, journal = batch.tally, batch.journal
    assert journal is not None
    if given.resume and not given.quiet:
        print(f"{given.out}: {tally.earlier:,} of {_counted(len(rows))} were finished", file=sys.stderr)
    try:
        first_error = _run(batch, given.quiet)
    except KeyboardInterrupt:
        finished = f"{journal.num_finished:,} of {_counted(len(rows))} are finished, in {journal.part}"
        raise KeyboardInterrupt(f"interrupted: {finished}\n  help: go on with: {_resuming(given.words)}") from None
    used = "" if given.quiet else summary(tally.usage, program)
    _tell_end(tally, f"{given.out}: {tally.rows()}", first_error, used)
    if given.json:
        report = {"out": given.out, "rows": tally.done, "failed": tally.failed, "usage": tally.usage}
        print(to_json(report).decode(), file=out)
    return 1 if tally.failed else 0


def _run(batch: Batch, quiet: bool) -> str:
    """Run all; gives the first error in words, or nothing."""
    first_error = ""
    with batch, shown(not quiet, batch.tally, ends=False) as show:
        for run in batch:
            show()
            if run.error is not None and not first_error:
                first_error = f"row {run.row}: {type(run.error).__name__}: {run.error}"
    return first_error


def _tell_end(tally: Tally, what: str, first_error: str, used: str) -> None:
    """used: empty where only failures are to be told."""
    if tally.failed or used:
        print(what, file=sys.stderr)
    if first_error:
        print(f"the first to fail in this run was {first_error}", file=sys.stderr)
    if used:
        print(used, file=sys.stderr)


def _counted(number: int) -> str:
    return "1 row" if number == 1 else f"{number:,} rows"


def _resuming(words: Sequence[str]) -> str:
    return shlex.join(["ramify", *(word for word in words if word not in ("--resume", "--overwrite")), "--resume"])
