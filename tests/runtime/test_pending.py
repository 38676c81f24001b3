"""Pending, routines, the loop and the host pool: who waits for whom, on which thread, without deadlock."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from ramify.runtime.hostpool import HostPool
from ramify.runtime.loop import loop
from ramify.runtime.pending import Pending, WouldBlock, blocking, gather
from ramify.runtime.routine import Call, breath, spawn


def test_wait_gives_the_result_of_another_thread() -> None:
    pending: Pending[int] = Pending()
    threading.Timer(0.01, loop().soon, (pending.set_result, 7)).start()
    assert pending.wait(5) == 7
    assert pending.done and pending.error is None


def test_only_the_first_result_counts() -> None:
    pending: Pending[int] = Pending()
    pending.set_result(1)
    pending.set_error(ValueError("late"))
    pending.set_result(2)
    assert pending.wait() == 1


def test_wait_times_out() -> None:
    with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
        Pending[int]().wait(0.01)


def test_waiting_on_the_loop_thread_is_an_error_not_a_deadlock() -> None:
    caught: Pending[BaseException] = Pending()

    def on_loop() -> None:
        try:
            Pending[int]().wait()
        except WouldBlock as error:
            caught.set_result(error)

    loop().soon(on_loop)
    assert "loop thread" in str(caught.wait(5))


def test_an_error_read_many_times_keeps_its_traceback_short() -> None:
    pending: Pending[int] = Pending()
    pending.set_error(ValueError("no"))
    for _ in range(100):
        with pytest.raises(ValueError, match="no") as caught:
            pending.result()
    assert len(caught.traceback) < 5


def test_ten_thousand_values_that_resolve_one_another() -> None:
    first: Pending[int] = Pending()
    last = first
    for _ in range(10_000):
        last = last.then(lambda value: value + 1)
    first.set_result(0)
    assert last.wait(5) == 10_000


def test_then_passes_errors_on_and_may_raise() -> None:
    first: Pending[int] = Pending()
    failing = first.then(lambda value: 1 // value)
    after = failing.then(lambda value: value + 1)
    first.set_result(0)
    assert isinstance(after.error, ZeroDivisionError) and after.error is failing.error


def test_gather_waits_for_all_and_fails_with_the_first_in_order() -> None:
    a, b, c = Pending[int](), Pending[int](), Pending[int]()
    together = gather((a, 5, b, c))
    c.set_error(KeyError("c"))
    b.set_error(ValueError("b"))
    assert not together.done
    a.set_result(1)
    assert isinstance(together.error, ValueError)
    assert gather((1, 2)).wait() == [1, 2]


def test_a_failing_callback_does_not_keep_the_others_waiting(caplog: pytest.LogCaptureFixture) -> None:
    pending: Pending[int] = Pending()
    seen: list[int] = []
    pending.add_callback(lambda _: 1 // 0)
    pending.add_callback(lambda done: seen.append(done.result()))
    pending.set_result(3)
    assert seen == [3]
    assert "a callback of ramify's failed" in caplog.text


def test_callbacks_race_with_the_result() -> None:
    for _ in range(200):
        pending: Pending[int] = Pending()
        seen: list[Pending[int]] = []
        adders = [threading.Thread(target=pending.add_callback, args=(seen.append,)) for _ in range(3)]
        for thread in adders:
            thread.start()
        pending.set_result(1)
        for thread in adders:
            thread.join()
        assert seen == [pending] * 3


def test_routines_call_one_another_deeper_than_python_does() -> None:
    async def descend(depth: int) -> int:
        return 0 if depth == 0 else 1 + await Call(descend(depth - 1))

    assert spawn(descend(50_000)).wait(20) == 50_000


def test_an_error_rises_through_the_calls() -> None:
    async def fail() -> None:
        raise LookupError("deep")

    async def outer() -> str:
        try:
            await Call(fail())
        except LookupError as error:
            return f"caught {error}"
        return "nothing"

    assert spawn(outer()).wait(5) == "caught deep"


def test_breath_lets_others_run() -> None:
    order: list[str] = []

    async def count(name: str) -> None:
        for _ in range(3):
            order.append(name)
            await breath

    async def both() -> list[Any]:  # on the loop, so that neither can end before the other is there
        return [spawn(count("a")), spawn(count("b"))]

    for routine in spawn(both()).wait(5):
        routine.wait(5)
    assert order != ["a"] * 3 + ["b"] * 3 and sorted(order) == ["a"] * 3 + ["b"] * 3


def test_cancel_raises_where_the_routine_waits_and_ignores_what_comes_late() -> None:
    late: Pending[int] = Pending()
    seen: list[Any] = []

    async def body() -> str:
        try:
            await late
        except KeyError as error:
            seen.append(error)
            return "cancelled"
        return "arrived"

    routine = spawn(body())
    loop().soon(routine.cancel, KeyError("stop"))
    loop().soon(late.set_result, 1)
    assert routine.wait(5) == "cancelled"
    assert len(seen) == 1


def test_blocked_pool_threads_make_room_for_others() -> None:
    pool = HostPool(limit=2)

    def nested(depth: int) -> int:
        return 0 if depth == 0 else 1 + pool.submit(lambda: nested(depth - 1)).wait(10)

    assert pool.submit(lambda: nested(30)).wait(10) == 30


def test_the_pool_bounds_what_works_at_a_time() -> None:
    pool = HostPool(limit=3)
    lock = threading.Lock()
    working, most = 0, 0

    def work() -> None:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        time.sleep(0.005)
        with lock:
            working -= 1

    gather([pool.submit(work) for _ in range(20)]).wait(10)
    assert most <= 3


def test_blocking_outside_a_pool_is_harmless() -> None:
    with blocking():
        pass


def test_posts_keep_their_order() -> None:
    seen: list[int] = []
    done: Pending[None] = Pending()
    for number in range(1000):
        loop().soon(seen.append, number)
    loop().soon(done.set_result, None)
    done.wait(5)
    assert seen == list(range(1000))


def test_timers_are_called_in_the_order_of_their_times_and_not_when_cancelled():
    seen: list[str] = []
    done: Pending[None] = Pending()
    loop().later(0.03, seen.append, "late")
    loop().later(0.01, seen.append, "early")
    loop().later(0.02, seen.append, "never").cancel()
    loop().later(0.04, done.set_result, None)
    done.wait(5)
    assert seen == ["early", "late"]


def test_cancelled_timers_do_not_pile_up():
    timers = [loop().later(3600, print) for _ in range(2000)]
    for timer in timers:
        timer.cancel()
    done: Pending[int] = Pending()
    loop().soon(lambda: done.set_result(len(loop()._timers)))
    assert done.wait(5) < 600
