"""What the tier in host memory saves, in lockstep: nothing of it depends on time."""

from __future__ import annotations

from pathlib import Path

import pytest
from ramify.runtime import host_tier

from benchmarks.tier import measure_all
from benchmarks.workload_programs import workloads


def test_with_room_for_all_on_the_host_no_more_is_computed_than_in_ample_memory(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = workloads(data, 1, ["react", "llm_judge", "chat_short"])
    monkeypatch.setattr(host_tier, "LEAST_TOKENS", 1)
    ample, alone, half, whole = measure_all(programs, ["planned"])
    assert ample.evicted == ample.offloaded == alone.restored == 0 < alone.evicted
    assert whole.computed == ample.computed
    assert whole.computed < half.computed <= alone.computed
    assert 0 < half.restored < whole.restored and whole.offloaded <= whole.host_capacity
    assert {each.bound for each in (alone, half, whole)} == {ample.bound}
