"""What the workloads compute in ample and in little memory, in lockstep: nothing of it depends on time."""

from __future__ import annotations

from pathlib import Path

import pytest
import ramify as rf

from benchmarks.lockstep import LockstepBackend, one_host_thread
from benchmarks.memory import Measured, measure, measure_all
from benchmarks.workload_programs import Workload, workloads

NAMES = (
    "mmlu hellaswag react generative_agents tree_of_thought self_consistency map_reduce skeleton_of_thought llm_judge "
    "json_decoding chat_short chat_long rag table"
)
# Half of what one row of it needs at a time: its branches are in a list, and which is gone on from is not known before.
BEYOND_REACH = {"tree_of_thought"}


def workload(name: str, data: Path) -> Workload:
    (found,) = workloads(data, 1, [name])
    return found


@pytest.mark.parametrize("name", NAMES.split())
def test_what_is_shared_is_computed_once_and_never_more_than_with_recency(name: str, data: Path) -> None:
    runs = measure_all(workload(name, data), shares=(1.0, 0.25), configs=("planned", "lru"))
    ample, ample_lru, short, short_lru = runs
    assert [(each.config, each.share) for each in (short, ample_lru)] == [("planned", 0.25), ("lru", 1.0)]
    assert ample.computed <= 1.01 * ample.bound
    assert ample.computed <= ample_lru.computed
    # Within half a percent of the bound it is luck who is better: requests come in another order.
    assert short.computed <= max(short_lru.computed, 1.005 * short.bound)
    if name not in BEYOND_REACH:
        assert short.computed <= 1.05 * short.bound
        assert short.computed <= 1.1 * short.belady


def test_every_run_gives_the_same_figures(data: Path) -> None:
    react = workload("react", data)

    def figures() -> list[tuple[object, ...]]:
        runs: list[Measured] = [measure("", react.program, react.rows, capacity, 1.0) for capacity in (1100, 1 << 20)]
        return [(each.needed, each.computed, each.bound, each.belady, each.evicted) for each in runs]

    assert figures() == figures()


@pytest.mark.parametrize("disable", [(), ("plan_prefixes",), ("lifetimes", "plan_prefixes")])
def test_nothing_is_left_behind_when_memory_is_short(disable: tuple[str, ...], data: Path) -> None:
    for name in ("react", "llm_judge", "self_consistency"):
        each = workload(name, data)
        program: rf.Program = each.program.options(disable=disable)
        backend = LockstepBackend(kv_tokens=1100, check=True)
        with one_host_thread():
            runs = program.run_batch(each.rows, backend=backend)
        assert [run.error for run in runs] == [None] * len(runs)
        backend.engine.check_idle()
        backend.close()
