"""The benchmark's programs tell what may come next, and speculation changes none of their results."""

from __future__ import annotations

from benchmarks import speculation

from ..lang.comparing import Hearing


def test_each_program_has_hints() -> None:
    for workload in speculation.workloads(1):
        backend = Hearing(delay=0.001)
        run = workload.program.run(**workload.rows[0], backend=backend)
        assert backend.told, workload.name
        off = workload.program.options(disable=["speculate"])
        assert off.run(**workload.rows[0], backend=Hearing()).value == run.value


def test_the_bars_are_named() -> None:
    workload = speculation.workloads(1)[-1]
    runs = speculation.measure_all(workload, 1, is_timed=True)
    assert [run.config for run in runs] == ["on", "off"]
    bars = speculation.bars({workload.name: runs})
    assert list(bars) == ["wasted, saturated: seconds on / off", "wasted, saturated: delay / work"]
    assert runs[1].speculated == 0 and runs[0].hits == 0
