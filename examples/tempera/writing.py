"""Edited prompts and the labels after them, row by row, in a file that a further run goes on with."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from ramify.ir.errors import UsageError

from .editors import Editor
from .episodes import Environment
from .tasks import UNLABELLED, Row

__all__ = ["Edited", "edit_rows", "write_rows"]

TOGETHER = 16


class Edited(msgspec.Struct, frozen=True):
    """A query's edited prompt, the likeliest label after it with its probability, and whether that is the right one."""

    query: str | dict[str, str]
    prompt: str
    label: str
    probability: float
    right: bool | None


def edit_rows(
    environment: Environment, editor: Editor, queries: Sequence[Row], exemplars: Sequence[Row]
) -> Iterator[Edited]:
    """Edit the prompts of queries, some at a time."""
    labels = environment.prompts.task.labels
    for first in range(0, len(queries), TOGETHER):
        states = editor.edit(environment, environment.start(queries[first : first + TOGETHER], exemplars))
        for state, each in environment.judged(states):
            likeliest = each.index(max(each))
            right = None if state.query.label == UNLABELLED else likeliest == state.query.label
            prompt = environment.prompts.write(state)
            yield Edited(state.query.fields, prompt, labels[likeliest], max(each), right)


def write_rows(
    path: Path,
    environment: Environment,
    editor: Editor,
    queries: Sequence[Row],
    exemplars: Sequence[Row],
    *,
    resume: bool,
    overwrite: bool,
) -> list[Edited]:
    """Append a line to a file for each query when it is done; with `resume`, for those that have none yet.

    Returns all. Raises UsageError for a file that is there without `resume` or `overwrite`, or has other queries.
    """
    if path.exists() and not resume and not overwrite:
        raise UsageError(f"{path} is there already", help="--resume goes on with it, --overwrite replaces it")
    done = finished(path, queries) if resume and path.exists() else []
    path.write_bytes(b"".join(map(line, done)))
    with path.open("ab", buffering=0) as file:
        for edited in edit_rows(environment, editor, queries[len(done) :], exemplars):
            file.write(line(edited))
            done.append(edited)
    return done


def finished(path: Path, queries: Sequence[Row]) -> list[Edited]:
    """The rows of a file; a last line that was cut off does not count."""
    *whole, _ = path.read_bytes().split(b"\n")
    try:
        rows = msgspec.json.decode(b"[" + b",".join(whole) + b"]", type=list[Edited])
    except msgspec.DecodeError as error:
        raise UsageError(f"{path}: not what `edit` writes: {error}") from error
    if [row.query for row in rows] != [query.fields for query in queries[: len(rows)]]:
        raise UsageError(f"{path} has the rows of other queries", help="give the same data, or --overwrite")
    return rows


def line(edited: Edited) -> bytes:
    """A row as a line of JSON."""
    return msgspec.json.encode(edited) + b"\n"
