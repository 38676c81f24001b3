"""Every workload runs on the embedded model, and forks by hand give what the sequential loop gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ramify.backends.local import LocalBackend
from ramify.backends.tiny import model_dir

from benchmarks.workload_programs import brief, workloads
from benchmarks.workloads import configurations, known_to_be_alike, measure

NAMES = (
    "mmlu hellaswag react generative_agents tree_of_thought self_consistency map_reduce skeleton_of_thought llm_judge "
    "json_decoding chat_short chat_long rag table"
)


@pytest.fixture(scope="module")
def backend():
    opened = LocalBackend(model_dir(), dtype=torch.float32, check=True)
    yield opened
    opened.close()


@pytest.mark.parametrize("name", NAMES.split())
def test_a_workload_runs(name: str, data: Path, backend: LocalBackend):
    (workload,) = workloads(data, 1, [name])
    row = workload.rows[0]
    run = workload.program.run(**row, backend=backend)
    if workload.by_hand is not None:
        assert workload.by_hand.run(**row, backend=backend).value == run.value


def test_a_measurement_is_consistent(data: Path, backend: LocalBackend):
    workload = workloads(data, scale=1)[0]
    measured = measure(backend, "all", workload.program, workload.rows[:6])
    assert 0 < measured.bound <= measured.computed < measured.prompt
    assert measured.calls == measured.generated == 6


def test_what_is_predicted_to_be_alike_is(data: Path, backend: LocalBackend):
    (workload,) = map(brief, workloads(data, 1, ["table"]))
    alike = known_to_be_alike(workload, backend)
    assert alike["without dce"] == "all" and alike.get("without reorder") != "all"
    found = {name: measure(backend, name, program, workload.rows) for name, program in configurations(workload).items()}
    assert found["without reorder"].computed > found["all"].computed
    assert all(found[name].computed == found[other].computed for name, other in alike.items())
