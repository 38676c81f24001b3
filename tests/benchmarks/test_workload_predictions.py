"""`explain` on the workloads: what it says without a mark is what is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir

from benchmarks.workload_programs import workloads

from .test_workloads import NAMES


@pytest.fixture(scope="module")
def backend():
    opened = LocalBackend(model_dir(), dtype=torch.float32)
    yield opened
    opened.close()


@pytest.mark.parametrize("name", NAMES.split())
def test_what_is_predicted_is_measured(name: str, data: Path, backend: LocalBackend):
    (workload,) = workloads(data, 1, [name])
    for program in filter(None, (workload.program, workload.by_hand)):
        found = program.explain(workload.rows, backend=backend, actual=True, passes=False)
        assert found.stops == [] and found.failures == []
        assert found.total.calls == found.measured.calls
        for line in found.lines:
            predicted, measured = line.costs, line.measured
            assert predicted.calls == measured.calls
            if line.doubt.has_exact_length:
                assert predicted.decode == measured.decode
            else:
                assert predicted.decode >= measured.decode
            if line.doubt.prompt == "exact":
                assert predicted.prompt == measured.prompt
                assert (predicted.cached, predicted.prefill) == (measured.cached, measured.prefill)
        if found.doubt == type(found.doubt)():
            assert found.total.kv == found.measured.kv
