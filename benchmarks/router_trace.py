"""The workloads' requests as token ids, by row and with what each waited for, in the order in which they were made.

They are recorded in lockstep (lockstep.py) with ample memory, so that every recording is the same; texts are drawn by a
model that only counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ramify.runtime.request import Done, EngineRequest, Event, Failed

from .lockstep import LockstepBackend, one_host_thread
from .router_simulation import Request, Row
from .workload_programs import Workload


@dataclass
class _Made:
    """The requests of a row so far; `ended` are the indexes of those that have ended."""

    requests: list[Request | None] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)


def record(workloads: Sequence[Workload]) -> list[Row]:
    """The rows of all workloads, those of one in the order in which they began. Raises what a program raises."""
    backend = LockstepBackend(kv_tokens=1 << 22)
    rows: list[Row] = []
    try:
        for workload in workloads:
            backend.clear_cache()
            with _recorded(backend, workload.name) as made, one_host_thread():
                runs = workload.program.run_batch(workload.rows, backend=backend)
            for run in runs:
                if run.error is not None:
                    raise run.error
            rows += [[request for request in row.requests if request is not None] for row in made.values()]
    finally:
        backend.close()
    return rows


@contextmanager
def _recorded(backend: LockstepBackend, name: str) -> Iterator[dict[object, _Made]]:
    """Collects what the engine is asked for, by run."""
    rows: dict[object, _Made] = {}
    engine: Any = backend.engine
    submit = engine.submit

    def watch(request: EngineRequest) -> None:
        assert request.use is not None, "a program's request belongs to its run"
        row = rows.setdefault(request.use.owner, _Made())
        index, after, sink = len(row.requests), tuple(row.ended), request.sink
        row.requests.append(None)

        def note(event: Event) -> None:
            if isinstance(event, Done | Failed):
                row.ended.append(index)
            if isinstance(event, Done):
                row.requests[index] = _request(name, request, event, after)
            sink(event)

        request.sink = note
        submit(request)

    engine.submit = watch
    try:
        yield rows
    finally:
        engine.submit = submit


def _request(name: str, request: EngineRequest, done: Done, after: tuple[int, ...]) -> Request:
    """A score computes its tokens but for the last, and needs logits from before the first judged one on."""
    prompt = np.array(request.token_ids, dtype=np.int64)
    if request.score_from is not None:
        return Request(name, prompt[:-1], request.score_from - 1, prompt[:0], 0, after)
    generated = np.array(done.token_ids, dtype=np.int64)
    return Request(name, prompt, len(prompt) - 1, generated, request.max_tokens, after)
