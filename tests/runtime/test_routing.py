"""The router: what is cached where, who is overloaded, what goes together, and replicas that come and go."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
from ramify.ir.errors import UsageError
from ramify.runtime.known_cache import KnownCache
from ramify.runtime.routing import Costs, Routed, Router

COSTS = Costs(prefill=1.0, decode=1.0)


def prompt(*parts: int, length: int = 10) -> np.ndarray:
    """A run of tokens for each part, the same for the same parts before it."""
    return np.concatenate([np.arange(length, dtype=np.int64) + 1000 * part for part in parts])


def new_router(count: int, kv_tokens: int = 10_000) -> Router:
    router = Router(COSTS, expected_tokens=4)
    for number in range(count):
        router.add(f"r{number}", kv_tokens)
    return router


def end(router: Router, *all_routed: Routed) -> None:
    for routed in all_routed:
        router.ended(routed, np.array([7, 8], dtype=np.int64))


def test_a_request_goes_where_its_prefix_is_and_a_strange_one_where_least_is_to_do() -> None:
    router = new_router(3)
    first = router.route(prompt(1, 2, 3), 4)
    other = router.route(prompt(5), 4)
    assert other.replica != first.replica
    end(router, first, other)
    again = router.route(prompt(1, 2, 3, 4), 4)
    assert (again.replica, again.cached) == (first.replica, 30)
    assert router.route(prompt(5), 4).cached == 9  # the last token is computed in any case


def test_what_a_request_generated_is_known_too_but_for_its_last_token() -> None:
    router = new_router(2)
    first = router.route(prompt(1), 4)
    end(router, first)
    assert router.route(np.concatenate([prompt(1), np.array([7, 8, 9])]), 4).cached == 11


def test_a_hot_prefix_is_copied_when_its_replica_has_too_much_to_do() -> None:
    router = new_router(4)
    placed = [router.route(prompt(1, 2, 3, 10 + n), 4) for n in range(40)]
    loads = router.loads.values()
    assert {routed.replica for routed in placed} == {"r0", "r1", "r2", "r3"}
    assert max(loads) < 3 * min(loads) + 60  # a copy is 30 tokens, a request some 14 seconds
    assert sum(routed.cached == 0 for routed in placed) == 4  # each computes it once


def test_a_small_saving_does_not_keep_requests_together() -> None:
    router = new_router(2)
    first, second = router.route(prompt(1, 2, 3, 4), 4), router.route(prompt(1, 5, 6, 7), 4)
    assert first.replica != second.replica


def test_groups_of_requests_that_are_known_together_stay_together() -> None:
    router = new_router(4)
    requests = [(prompt(group, group + 100, 200 + row), 4) for row in range(5) for group in range(8)]
    random.Random(3).shuffle(requests)
    placed = router.route_all(requests)
    assert all(routed.token_ids is request[0] for routed, request in zip(placed, requests, strict=True))
    by_group = {group: {each.replica for each in placed if each.token_ids[0] // 1000 == group} for group in range(8)}
    assert all(len(replicas) == 1 for replicas in by_group.values())
    assert len(set(router.loads.values())) == 1
    assert router.route_all([]) == []


def test_a_group_that_is_more_than_a_share_is_cut_where_it_forks() -> None:
    router = new_router(2)
    placed = router.route_all([(prompt(0, 1 + n // 4, 100 + n), 4) for n in range(16)])
    halves = [{routed.replica for routed in placed[start : start + 4]} for start in range(0, 16, 4)]
    assert all(len(half) == 1 for half in halves) and len(set.union(*halves)) == 2


def test_load_falls_with_the_first_token_and_is_nothing_at_the_end() -> None:
    router = new_router(1)
    routed = router.route(prompt(1), 3)
    assert router.loads == {"r0": 13.0}
    router.first_token(routed)
    router.first_token(routed)
    assert router.loads == {"r0": 3.0}
    end(router, routed)
    end(router, routed)
    assert router.loads == {"r0": 0.0}
    assert router.expected_tokens == 2


def test_replicas_come_and_go_and_nothing_that_was_under_way_is_forgotten() -> None:
    router = new_router(2)
    placed = [router.route(prompt(n), 4) for n in range(6)]
    lost = router.remove("r0")
    assert lost == [routed for routed in placed if routed.replica == "r0"] and len(lost) == 3
    end(router, lost[0])  # it came too late
    router.add("new", 10_000)
    assert [router.route(routed.token_ids, 4).replica for routed in lost] == ["new"] * 3
    end(router, *placed[:1])
    assert set(router.loads) == {"r1", "new"}


def test_mistakes_are_said() -> None:
    router = new_router(1)
    with pytest.raises(UsageError, match="'r0' already"):
        router.add("r0", 5)
    with pytest.raises(UsageError, match="no replica 'r9'"):
        router.remove("r9")
    router.remove("r0")
    with pytest.raises(UsageError, match="no replica to send"):
        router.route(prompt(1), 4)


def test_a_full_cache_forgets_what_was_used_least_recently_and_takes_what_fits() -> None:
    cache = KnownCache(25)
    cache.add(prompt(1))
    cache.add(prompt(2))
    cache.add(prompt(1))
    cache.add(prompt(3))
    assert [cache.match_len(prompt(n)) for n in (1, 2, 3)] == [10, 0, 10]
    cache.add(prompt(4, 5, 6))
    assert cache.match_len(prompt(4, 5, 6)) == cache.num_tokens == 25
    cache.check()


def test_what_is_held_stays_and_room_is_kept_beside_it() -> None:
    cache = KnownCache(30)
    held = cache.hold(prompt(1), room=10)
    assert held is not None and cache.free >= 10
    assert cache.hold(prompt(2, 3), room=1) is None
    second = cache.hold(prompt(1, 2), room=10)
    assert second is not None
    cache.add(prompt(9))
    assert cache.match_len(prompt(1, 2)) == 20
    cache.release(held)
    cache.release(second)
    cache.add(prompt(7, 8, 9))
    assert cache.match_len(prompt(1)) == 0
    cache.check()


def test_any_requests_leave_counts_that_are_right() -> None:
    draw = random.Random(5)
    router, open_ones = new_router(3, kv_tokens=120), []
    for _ in range(400):
        if open_ones and draw.random() < 0.5:
            end(router, open_ones.pop(draw.randrange(len(open_ones))))
        else:
            open_ones.append(router.route(prompt(*(draw.randrange(3) for _ in range(draw.randrange(1, 6)))), 4))
    for replica in router._replicas.values():
        replica.cache.check()
        assert replica.load == pytest.approx(sum(replica.outstanding.values()))
    assert sum(len(replica.outstanding) for replica in router._replicas.values()) == len(open_ones)


def test_a_router_needs_no_torch() -> None:
    code = "import sys; import ramify.runtime.routing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
