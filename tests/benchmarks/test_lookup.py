"""The lookup benchmark compares equal results. No time is judged here."""

from __future__ import annotations

import pytest

from benchmarks.lookup import Bench, Task, bars, measure, workloads


@pytest.fixture(scope="module")
def bench():
    return Bench()


def test_what_is_copied_is_drafted_and_noise_is_not(bench, data):
    tasks = workloads(bench.tokenizer, 2)
    runs = {name: measure(bench, name, tasks[name], rounds=1) for name in ("editing", "random")}
    steps = {(name, run.batch, run.config): run.steps for name, measured in runs.items() for run in measured}
    for batch in (1, 8):
        assert steps["editing", batch, "on"] < 0.8 * steps["editing", batch, "off"]
        assert steps["random", batch, "on"] == steps["random", batch, "off"]
    assert all(run.drafted == 0 for run in runs["random"])
    assert len(bars(runs)) == 4


def test_the_model_says_what_it_is_taught(bench):
    task = Task([5, 6, 7], [9, 8, 7, 9, 8, 7, 9, 8, 7, 1])
    for config in ("on", "off"):
        _, (done,) = bench.run("taught", [task], 1, config)
        assert list(done.token_ids) == task.answer
