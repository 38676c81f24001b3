"""A run as data: what is written of it as JSON, and the run that is read from that again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..ir.errors import RecordedError
from ..runtime.context import Usage
from .failures import user_traceback
from .run import Run, Snapshot


def run_record(run: Run) -> dict[str, Any]:
    """What is written of a run: value, vars, text, usage, error (None, or its type, message and traceback)."""
    return {
        "value": run.value,
        "vars": run.vars,
        "text": run.text,
        "usage": run.usage,
        "error": None if run.error is None else error_record(run),
    }


def error_record(run: Run) -> dict[str, str]:
    """The error of a run as data; the traceback holds the user's frames."""
    error = run.error
    assert error is not None
    if isinstance(error, RecordedError):
        return {"type": error.kind, "message": error.message, "traceback": run.traceback}
    return {"type": type(error).__name__, "message": str(error), "traceback": user_traceback(error)}


def recorded_run(record: Mapping[str, Any], row: int | None) -> Run:
    """The run that a record tells of, with the value and the variables that stand in it."""
    failure = record["error"]
    error = None if failure is None else RecordedError(failure["message"], kind=failure["type"])
    shown = "" if failure is None else failure["traceback"]
    snapshot = Snapshot(record["text"], None, record["vars"], Usage(**record["usage"]), None, None, shown, unread=False)
    return Run(snapshot, record["value"], error, row)
