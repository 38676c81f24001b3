"""The measured side of an explanation: the program is run, and its trace is told by the same lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..runtime.generation import GenRecord
from .explain import Costs, Explanation, Line, line_key, measured_costs

if TYPE_CHECKING:
    from .program import Program, Row


def measure(found: Explanation, program: Program, rows: Sequence[Row]) -> None:
    """Run the program over the rows, with an empty cache, and put what its trace says into the explanation."""
    backend: Any = program.run_options.open_backend()
    if hasattr(backend, "clear_cache"):
        backend.clear_cache()
    before = _kept(backend)
    runs = program.options(backend=backend).run_batch(rows)
    found.measured = Costs()
    found.measured.kv = _kept(backend) - before
    lines = {line_key(line.kind, line.name, line.span): line for line in found.lines}
    for run in runs:
        for record in run.trace:
            if isinstance(record, GenRecord):
                costs = measured_costs(record)
                _line_of(record, lines, found).add(costs)
                found.measured.add(costs)
    found.failures = [(run.row or 0, run.error) for run in runs if run.error is not None]


def _kept(backend: Any) -> int:
    """Tokens of KV that the backend holds; 0 where it does not tell."""
    return backend.stats().used if hasattr(backend, "stats") else 0


def _line_of(record: GenRecord, lines: dict[Any, Line], found: Explanation) -> Costs:
    """The measured costs of the record's line, which is a new one if the prediction did not come to it."""
    key = line_key(record.kind, record.name, record.span)
    line = lines.get(key)
    if line is None:
        line = lines[key] = Line(record.kind, record.name, record.span)
        found.lines.append(line)
    if line.measured is None:
        line.measured = Costs()
    return line.measured
