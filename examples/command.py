"""What the examples' command lines share: the model, an output that survives a crash, progress and a usage line."""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ramify.lang.failures import describe
from ramify.lang.program import Program
from ramify.lang.progress import Tally
from ramify.lang.rendering import usage_line
from ramify.lang.run import Run
from ramify.lang.run_command import exit_code

__all__ = ["add_run_options", "reported", "run_rows"]


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add --data, --limit, --model, --out, --resume, --overwrite and --quiet."""
    parser.add_argument("--data", type=Path, help="the data to run over; without it, what comes with the example")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows")
    parser.add_argument(
        "--model", help="a model directory, `tiny`, or a server (docs/backends.md); the default is tiny"
    )
    parser.add_argument("--out", type=Path, help="write each finished row here")
    parser.add_argument("--resume", action="store_true", help="run only the rows that are not finished in --out")
    parser.add_argument("--overwrite", action="store_true", help="replace --out")
    parser.add_argument("--quiet", action="store_true", help="no progress and no usage line")


def run_rows(program: Program, rows: Iterable[Mapping[str, Any]], given: argparse.Namespace) -> list[Run]:
    """Run a program over rows as the options of `add_run_options` say; the runs come in the rows' order.

    Shows progress and what was used on stderr. A row that failed keeps its error in `run.error`. Raises UsageError for
    rows that do not fit, and for an output that is another run's.
    """
    limited = list(rows)[: given.limit]
    tally = Tally(len(limited))
    runs = program.run_batch(
        limited,
        backend=given.model,
        progress=not given.quiet,
        out=given.out,
        resume=given.resume,
        overwrite=given.overwrite,
        on_result=lambda _row, run: tally.add(run),
    )
    failed = [run for run in runs if run.error is not None]
    if failed:
        print(f"{len(failed)} of {len(runs)} rows failed, the first with: {failed[0].error}", file=sys.stderr)
    if not given.quiet:
        print(usage_line(tally.usage), file=sys.stderr)
    return runs


def reported(command: Callable[[], int | None]) -> int:
    """Do a command and tell what it raised as `ramify` does; gives the exit code."""
    try:
        return command() or 0
    except KeyboardInterrupt:
        print("interrupted; rows that are finished are kept: go on with --resume", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}" if error.filename else describe(error), file=sys.stderr)
        return 2
    except Exception as error:
        print(describe(error), file=sys.stderr)
        return exit_code(error)
