"""Batches: order, isolation, bounds, callbacks, and what happens when one of them raises."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import BackendError, UsageError

BOTH = pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])


@rf.program
def double(s, n):  # type: ignore[no-untyped-def]
    s += f"{n}" + rf.gen("x")
    if n == 13:
        raise LookupError("thirteen")
    return s["x"], n * 2


class Counting(ScriptedBackend):
    """Counts how many requests are in flight at most."""

    def __init__(self, **options: Any) -> None:
        super().__init__(lambda text, _: BackendError("seven") if text == "7" else text, **options)
        self.now = self.most = 0

    def _run(self, prompt: Any, script: Any, answer: Any) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        inner = script._sink

        class Sink:
            wants_deltas = False

            def __call__(_, event: Any) -> None:
                self.now -= 1
                inner(event)

        script._sink = Sink()
        super()._run(prompt, script, answer)


@BOTH
def test_runs_come_in_the_order_of_rows_and_failures_stay_alone(eager: bool) -> None:
    seen: list[int] = []
    runs = double.run_batch(
        [{"n": n} for n in range(40)],
        backend=Counting(delay=0.005),
        eager=eager,
        max_in_flight=8,
        on_result=lambda number, run: seen.append(number),
    )
    assert sorted(seen) == list(range(40))
    for n, run in enumerate(runs):
        if n in (7, 13):
            assert isinstance(run.error, BackendError if n == 7 else LookupError) and run.traceback
        else:
            assert run.value == (str(n), 2 * n)


@BOTH
def test_no_more_than_asked_for_are_in_flight(eager: bool) -> None:
    backend = Counting(delay=0.005)
    double.run_batch([{"n": n} for n in range(30)], backend=backend, eager=eager, max_in_flight=5)
    assert 2 <= backend.most <= 5


def test_thousands_of_rows_need_no_threads() -> None:
    before = threading.active_count()
    backend = Counting(delay=0.05)
    most = 0

    def watch(number: int, run: rf.Run) -> None:
        nonlocal most
        most = max(most, threading.active_count())

    runs = double.run_batch([{"n": n + 100} for n in range(3000)], backend=backend, max_in_flight=3000, on_result=watch)
    assert all(run.ok for run in runs) and backend.most > 1000
    assert most <= before + 20


@BOTH
def test_on_error_raise_names_the_row_and_stops(eager: bool) -> None:
    backend = Counting(delay=0.002)
    with pytest.raises(LookupError, match="thirteen") as caught:
        double.run_batch(
            [{"n": n} for n in range(13, 2000)], backend=backend, eager=eager, on_error="raise", max_in_flight=4
        )
    assert "in row 0 of the batch" in caught.value.__notes__
    assert len(backend.requests) < 500


@BOTH
def test_callbacks_run_on_the_calling_thread_and_may_stop_the_batch(eager: bool) -> None:
    threads = set()
    done: list[int] = []

    def progress(finished: int, total: int) -> None:
        threads.add(threading.current_thread())
        assert total == 50
        if finished == 5:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        double.run_batch(
            [{"n": n + 100} for n in range(50)], backend=Counting(delay=0.005), eager=eager, max_in_flight=2,
            progress=progress, on_result=lambda number, run: done.append(number),
        )  # fmt: skip
    assert threads == {threading.current_thread()} and len(done) == 4


@BOTH
def test_rows_that_were_finished_before_ctrl_c_are_not_lost(eager: bool) -> None:
    done: list[int] = []

    def interrupt(number: int, run: rf.Run) -> None:
        done.append(number)
        assert run.ok
        if len(done) == 1:
            time.sleep(0.3)  # meanwhile the other quick rows finish
            raise KeyboardInterrupt

    class SlowFrom20(Counting):
        def _run(self, prompt: Any, script: Any, answer: Any) -> None:
            script._delay = 30 if int(prompt.text_value()) >= 120 else 0
            super()._run(prompt, script, answer)

    begun = time.perf_counter()
    rows = [{"n": n + 100} for n in range(40)]
    with pytest.raises(KeyboardInterrupt):
        double.run_batch(rows, backend=SlowFrom20(), eager=eager, on_result=interrupt)
    assert sorted(done) == list(range(20))
    assert time.perf_counter() - begun < 10


def test_progress_bars_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    double.run_batch([{"n": 1}], backend=Counting(), progress=True)
    captured = capsys.readouterr()
    assert captured.out == "" and "rows" in captured.err


def test_no_rows_and_wrong_options() -> None:
    assert double.run_batch([], backend=Counting()) == []
    with pytest.raises(UsageError, match="max_in_flight"):
        double.run_batch([{"n": 1}], backend=Counting(), max_in_flight=0)
    with pytest.raises(UsageError, match="on_error"):
        double.run_batch([{"n": 1}], backend=Counting(), on_error="ignore")  # type: ignore[arg-type]


@BOTH
def test_each_row_has_its_own_timeout(eager: bool) -> None:
    class OneSlow(ScriptedBackend):
        def _run(self, prompt: Any, script: Any, answer: Any) -> None:
            script._delay = 30 if prompt.text_value() == "3" else 0
            super()._run(prompt, script, answer)

    runs = double.run_batch([{"n": n} for n in range(6)], backend=OneSlow(), eager=eager, timeout=0.3)
    assert [run.ok for run in runs] == [True, True, True, False, True, True]
    assert "timeout of 0.3 s" in str(runs[3].error)
