"""The simulated engines behind the router: by hand where that is possible, and the bars on recorded workloads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.router import POLICIES, scale
from benchmarks.router_plot import plot
from benchmarks.router_simulation import Engine, Request, Row, Simulation, copies, policy
from benchmarks.router_trace import record
from benchmarks.workload_programs import workloads

ENGINE = Engine(step=1.0, decode=0.1, prefill=0.01, chunk=100, kv_tokens=1000)


def request(prompt: range, generated: int = 3, after: tuple[int, ...] = ()) -> Request:
    tokens = np.array(prompt, dtype=np.int64)
    return Request("w", tokens, len(tokens) - 1, np.arange(generated) + 5000, generated, after)


def simulated(rows: list[Row], name: str = "prefix", replicas: int = 1, in_flight: int = 9, engine: Engine = ENGINE):
    return Simulation(rows, replicas, engine, policy(name, replicas, engine), in_flight).run()


def test_a_request_takes_its_chunks_and_a_step_for_each_further_token() -> None:
    found = simulated([[request(range(150))]])
    assert found.seconds == pytest.approx((1 + 1.0) + (1 + 0.5) + 2 * (1 + 0.1))
    assert found.hit_rate == 0 and found.generated == 3 and found.busy == [pytest.approx(found.seconds)]


def test_a_shared_prompt_is_computed_once_and_what_was_generated_is_cached() -> None:
    first = request(range(50))
    longer = np.concatenate([first.prompt, first.generated[:2], np.array([9])])
    again = Request("w", longer, len(longer) - 1, first.generated, 3, (0,))
    found = simulated([[first, again], [request(range(50))]])
    assert found.cached == {"w": 49 + 52}


def test_a_request_waits_for_those_before_it_and_a_row_for_its_turn() -> None:
    alone = simulated([[request(range(10), 4)]]).seconds
    one_by_one = [[request(range(10 * n, 10 * n + 10), 4)] for n in range(1, 4)]
    assert simulated(one_by_one, in_flight=1).seconds == pytest.approx(3 * alone)
    chained = [request(range(10 * n, 10 * n + 10), 4, tuple(range(n - 1))) for n in range(1, 4)]
    assert simulated([chained]).seconds == pytest.approx(3 * alone)


def test_memory_bounds_what_runs_and_what_never_fits_is_said() -> None:
    rows = [[request(range(1000 * n, 1000 * n + 400), 100)] for n in range(1, 4)]
    assert simulated(rows).seconds > simulated(rows, engine=Engine(1.0, 0.1, 0.01, 100, 10_000)).seconds
    with pytest.raises(ValueError, match="1001 tokens do not fit"):
        simulated([[request(range(1000), 1)]])


def test_tenants_share_nothing_and_keep_the_order_of_their_rows() -> None:
    rows = [[request(range(10 * n, 10 * n + 10))] for n in range(4)]
    merged = copies(rows, 3, vocab=10_000, seed=1)
    for tenant in range(3):
        mine = [row[0].prompt[0] - 10_000 * tenant for row in merged if row[0].prompt[0] // 10_000 == tenant]
        assert mine == [0, 10, 20, 30]


@pytest.mark.parametrize("name", ["round-robin", "least-loaded"])
def test_what_it_is_compared_with_spreads_requests_evenly(name: str) -> None:
    rows = [[request(range(20))] for _ in range(12)]
    found = simulated(rows, name, replicas=4, in_flight=12)
    assert found.imbalance == pytest.approx(1) and found.cached == {"w": 8 * 19}


def test_eight_replicas_hit_almost_as_often_as_one_engine(data: Path) -> None:
    rows = record(workloads(data, 4))
    assert sum(map(len, rows)) > 1000 and all(row for row in rows)
    runs = {"8": scale(rows, 8)}
    found = runs["8"]
    assert found["prefix"]["hit_rate"] >= 0.95 * found["one engine"]["hit_rate"]
    assert found["prefix"]["imbalance"] <= 1.2
    assert found["round-robin"]["hit_rate"] < 0.7 * found["prefix"]["hit_rate"]
    assert {each["requests"] for each in found.values()} == {2 * sum(map(len, rows))}


def test_the_plot_has_a_line_for_each_policy() -> None:
    figures = {"hit_rate": 0.5, "requests_per_second": 3.0}
    drawn = plot({count: dict.fromkeys((*POLICIES, "one engine"), figures) for count in ("1", "8")})
    assert drawn.count('class="line') == 2 * len(POLICIES) + 1 and "router: hit rate 50%" in drawn
