"""Batches: order, isolation, bounds, callbacks, and what happens when one of them raises."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import BackendError, RecordedError, UsageError
from ramify.lang.progress import duration

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
def test_on_error_stop_names_the_row_and_cancels_the_others(eager: bool) -> None:
    backend = Counting(delay=0.002)
    with pytest.raises(LookupError, match="thirteen") as caught:
        double.run_batch(
            [{"n": n} for n in range(13, 2000)], backend=backend, eager=eager, on_error="stop", max_in_flight=4
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


class Held(ScriptedBackend):
    """Answers at once, but rows from `first` on never."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    def _run(self, prompt: Any, script: Any, answer: Any) -> None:
        script._delay = 300 if int(prompt.text_value()) >= self.first else 0
        super()._run(prompt, script, answer)


def rows(count: int, first: int = 100) -> list[dict[str, int]]:
    return [{"n": n} for n in range(first, first + count)]


@BOTH
def test_on_error_raise_runs_all_and_names_every_failed_row(eager: bool) -> None:
    with pytest.raises(ExceptionGroup, match="2 of 20 rows failed") as caught:
        double.run_batch(rows(20, first=0), backend=Counting(), eager=eager, on_error="raise")
    errors = {type(error): error.__notes__[-1] for error in caught.value.exceptions}
    assert errors == {BackendError: "in row 7 of the batch", LookupError: "in row 13 of the batch"}


@BOTH
def test_runs_come_as_they_end(eager: bool) -> None:
    class Reversed(ScriptedBackend):
        def _run(self, prompt: Any, script: Any, answer: Any) -> None:
            script._delay = 0.3 if prompt.text_value() == "100" else 0
            super()._run(prompt, script, answer)

    batch = double.run_batch(rows(8), backend=Reversed(), eager=eager, as_completed=True)
    runs = list(batch)
    assert sorted(run.row for run in runs) == list(range(8)) and runs[-1].row == 0
    assert all(run.value[1] == 2 * (100 + run.row) for run in runs)
    assert list(batch) == []
    assert (batch.tally.done, batch.tally.failed, batch.tally.total) == (8, 0, 8)


@BOTH
def test_rows_of_a_generator_are_read_as_they_are_needed(eager: bool) -> None:
    read = 0

    def numbers() -> Iterator[dict[str, int]]:
        nonlocal read
        while True:
            yield {"n": 100 + read}
            read += 1

    batch = double.run_batch(numbers(), backend=ScriptedBackend(), eager=eager, as_completed=True, max_in_flight=4)
    for given, run in enumerate(batch, 1):
        assert run.ok and read <= given + 8
        if given == 300:
            break
    batch.close()
    after = read
    assert list(batch) == [] and read == after


def test_a_wrong_row_of_a_generator_is_the_rows_error() -> None:
    given = ({"n": 100} if number != 2 else {"m": 1} for number in range(5))
    runs = double.run_batch(given, backend=ScriptedBackend())
    assert [run.ok for run in runs] == [True, True, False, True, True]
    assert "double: missing argument 'n'; unknown argument 'm' (row 2)" in str(runs[2].error)
    with pytest.raises(UsageError, match=r"\(row 2\)"):
        double.run_batch([{"n": 1}, {"n": 2}, {"m": 1}], backend=ScriptedBackend())


@pytest.mark.parametrize("given", [{"n": [1, 2]}, "rows.jsonl", None, 3])
def test_rows_that_are_none(given: Any) -> None:
    with pytest.raises(UsageError, match=r"double: rows is \w+, not dicts .*\n  help: its arguments are double\(n\)"):
        double.run_batch(given, backend=ScriptedBackend())


def test_a_generator_that_fails_ends_the_batch() -> None:
    def numbers() -> Iterator[dict[str, int]]:
        yield from rows(3)
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="the file is gone"):
        double.run_batch(numbers(), backend=ScriptedBackend())


@BOTH
def test_a_row_can_be_cancelled(eager: bool) -> None:
    batch = double.run_batch(rows(6), backend=Held(103), eager=eager, as_completed=True, max_in_flight=4)
    for row in (3, 5):  # one runs, one waits
        batch.cancel(row)
    ended = {run.row: run for _, run in zip(range(5), batch, strict=False)}
    assert sorted(row for row, run in ended.items() if run.ok) == [0, 1, 2]
    assert {str(ended[row].error) for row in (3, 5)} == {"row 3 was cancelled", "row 5 was cancelled"}
    assert batch.tally.done == 5
    batch.cancel()
    (last,) = batch
    assert last.row == 4 and str(last.error) == "the batch was cancelled"


@BOTH
def test_a_batch_that_is_dropped_cancels_what_runs(eager: bool) -> None:
    cancelled = threading.Semaphore(0)

    class Watched(Held):
        def _begin(self, *args: Any) -> Any:
            script = super()._begin(*args)
            cancel = script._cancel
            script._cancel = lambda: (cancelled.release(), cancel())
            return script

    for run in double.run_batch(rows(6), backend=Watched(101), eager=eager, as_completed=True, max_in_flight=4):
        assert run.row == 0
        break
    del run
    gc.collect()
    assert all(cancelled.acquire(timeout=10) for _ in range(3))


@BOTH
def test_a_deadline_ends_every_row_that_is_not_done(eager: bool) -> None:
    begun = time.perf_counter()
    runs = double.run_batch(rows(9), backend=Held(103), eager=eager, deadline=0.2, max_in_flight=5)
    assert time.perf_counter() - begun < 20
    assert [run.ok for run in runs] == [True] * 3 + [False] * 6
    assert {str(run.error) for run in runs[3:]} == {"the batch reached its deadline of 0.2 s"}
    assert [run.row for run in runs] == list(range(9))
    with pytest.raises(UsageError, match="deadline is a number of seconds above 0"):
        double.run_batch(rows(1), deadline=0)


def test_a_deadline_stops_the_reading_of_a_generator() -> None:
    given = ({"n": 100 + number} for number in range(10**9))
    runs = double.run_batch(given, backend=ScriptedBackend(delay=0.001), deadline=0.2, max_in_flight=2)
    assert 2 <= len(runs) < 10**5
    assert all(run.ok or "deadline" in str(run.error) for run in runs)


variable: ContextVar[str] = ContextVar("variable", default="unset")


@rf.program
def reads_context(s):  # type: ignore[no-untyped-def]
    s += "x"
    return variable.get()


@BOTH
def test_programs_see_the_callers_context_variables(eager: bool) -> None:
    token = variable.set("set")
    try:
        assert [run.value for run in reads_context.run_batch([{}, {}], eager=eager, backend=ScriptedBackend())] == [
            "set"
        ] * 2
    finally:
        variable.reset(token)


@BOTH
def test_rows_are_written_and_resumed(tmp_path: Path, eager: bool) -> None:
    out = tmp_path / "out.jsonl"
    given = rows(40, first=0)
    backend = Counting()
    first = double.run_batch(given, backend=backend, eager=eager, out=out, deadline=None)
    assert len(backend.requests) == 40 and [run.ok for run in first].count(False) == 2
    lines = out.read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == list(range(40))
    with pytest.raises(UsageError, match="exists already"):
        double.run_batch(given, backend=backend, eager=eager, out=out)
    out.write_text("\n".join(line for number, line in enumerate(lines) if number not in (3, 13)) + "\n")
    again = double.run_batch(given, backend=backend, eager=eager, out=out, resume=True)
    assert backend.requests[40:] == ["3", "13"] or backend.requests[40:] == ["13", "3"]
    assert [run.row for run in again] == list(range(40))
    assert [run.value and tuple(run.value) for run in again] == [run.value for run in first]
    assert [run.ok for run in again] == [run.ok for run in first]
    assert again[5].text == first[5].text and again[5]["x"] == first[5]["x"] and again[5].usage == first[5].usage
    assert isinstance(again[7].error, RecordedError) and str(again[7].error) == "BackendError: " + str(first[7].error)
    assert "test_batch.py" in again[13].traceback
    with pytest.raises(UsageError, match="the trace of a run that was read from an output file"):
        again[5].trace  # noqa: B018
    with pytest.raises(UsageError, match=r"row 39 is finished .* but there are only 39 rows now"):
        double.run_batch(given[:39], backend=backend, eager=eager, out=out, resume=True)
    with pytest.raises(ExceptionGroup) as caught:
        double.run_batch(given, backend=backend, eager=eager, out=out, resume=True, on_error="raise")
    assert [error.kind for error in caught.value.exceptions] == ["BackendError", "LookupError"]
    longer = double.run_batch([*given, {"n": 50}], backend=backend, eager=eager, out=out, resume=True)
    assert len(longer) == 41 and len(out.read_text().splitlines()) == 41
    over = double.run_batch(given, backend=backend, eager=eager, out=out, overwrite=True)
    assert len(out.read_text().splitlines()) == len(over) == 40


def test_only_what_the_batch_did_not_cancel_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    runs = double.run_batch(rows(6), backend=Held(104), out=out, timeout=0.1, deadline=20)
    assert [run.ok for run in runs] == [True] * 4 + [False] * 2  # a row that took too long is finished
    assert len(out.read_text().splitlines()) == 6
    double.run_batch(rows(6), backend=Held(104), out=out, overwrite=True, deadline=0.2)
    assert not out.exists() and len((tmp_path / "out.jsonl.part").read_text().splitlines()) == 4
    batch = double.run_batch(rows(6), backend=ScriptedBackend(), out=out, resume=True, as_completed=True)
    assert sorted(run.row for run in batch) == [4, 5]
    assert (batch.tally.done, batch.tally.earlier) == (6, 4)
    assert len(out.read_text().splitlines()) == 6


def test_a_generators_rows_are_resumed_too(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with double.run_batch(iter(rows(50)), backend=Held(120), out=out, as_completed=True, max_in_flight=8) as batch:
        for _ in range(20):
            next(batch)
    written = len((tmp_path / "out.jsonl.part").read_text().splitlines())
    assert written == 20
    backend = ScriptedBackend()
    runs = double.run_batch(iter(rows(50)), backend=backend, out=out, resume=True, max_in_flight=8)
    assert len(backend.requests) == 30 and [run.value[1] for run in runs] == [2 * n for n in range(100, 150)]
    assert len(out.read_text().splitlines()) == 50
    with pytest.raises(UsageError, match=r"row 0 is finished .* but with other arguments"):
        double.run_batch(iter(rows(50, first=7)), backend=backend, out=out, resume=True)


def test_rows_that_cannot_be_written_end_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: Any, data: bytes) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("ramify.lang.journal._write_all", fail)
    with pytest.raises(UsageError, match=r"out.jsonl.part cannot be written: disk full"):
        double.run_batch(rows(6), backend=ScriptedBackend(), out=tmp_path / "out.jsonl")


def test_options_of_an_output_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="resume and overwrite need out"):
        double.run_batch(rows(1), resume=True)
    with pytest.raises(UsageError, match="give one of them"):
        double.run_batch(rows(1), out=tmp_path / "x", resume=True, overwrite=True)
    assert not list(tmp_path.iterdir())


KILLED = """
import sys, time
import ramify as rf
from ramify.backends.scripted import ScriptedBackend

@rf.program
def slow(s, n):
    s += f"{n}" + rf.gen("x")
    return s["x"]

def rows():
    for n in range(200):
        yield {"n": n}

for run in slow.run_batch(rows(), backend=ScriptedBackend(delay=0.02), out="out.jsonl", resume=True, max_in_flight=4,
                          as_completed=True):
    print(run.row, flush=True)
    if "--sleep" in sys.argv:
        time.sleep(1000)
"""


def test_what_a_killed_batch_has_finished_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(KILLED)
    part = tmp_path / "out.jsonl.part"
    # The consumer takes the first row and sleeps: rows that end meanwhile are written all the same.
    command = [sys.executable, "script.py"]
    with subprocess.Popen([*command, "--sleep"], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        end = time.monotonic() + 60
        while not part.exists() or part.read_bytes().count(b"\n") < 4:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.01)
        process.kill()
    finished = {json.loads(line)["row"] for line in part.read_bytes().splitlines()}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(map(int, done.stdout.split())) == sorted(set(range(200)) - finished)
    assert [json.loads(line)["row"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == list(range(200))


def test_progress_says_all_that_is_known(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("ramify.lang.progress._LINE_SECONDS", 0.0)
    double.run_batch(rows(3, first=12), backend=Counting(), progress=True)
    captured = capsys.readouterr()
    *lines, last = captured.err.splitlines()
    assert captured.out == "" and len(lines) == 3
    form = r"{}, 1 failed, [\d.,]+ rows/s, [\d.,]+ tokens/s, 0% cached"
    assert re.fullmatch(form.format("3 rows"), last)
    assert re.fullmatch(form.format("2/3 rows") + r", \d+ s left", lines[1])


def test_progress_of_rows_that_nobody_has_counted(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, int | None]] = []
    double.run_batch(iter(rows(3)), backend=Counting(), progress=lambda *told: seen.append(told))
    assert seen == [(1, None), (2, None), (3, None)]
    double.run_batch(iter(rows(3)), backend=Counting(), progress=True)
    assert capsys.readouterr().err.startswith("3 rows, 0 failed, ")


def test_times_are_short() -> None:
    assert [duration(seconds) for seconds in (0.4, 59, 61, 3599.7, 7325)] == [
        "0 s",
        "59 s",
        "1:01",
        "1:00:00",
        "2:02:05",
    ]


ON_A_TERMINAL = """
import sys

import ramify as rf
from ramify.backends.scripted import ScriptedBackend

@rf.program
def slow(s, n):
    s += f"{n}" + rf.gen("x")
    sys.stdout.write(f"in row {n}\\n")  # in one piece, for rows run on several threads
    return s["x"]

slow.run_batch([{"n": n} for n in range(30)], backend=ScriptedBackend(delay=0.05), progress=True, max_in_flight=3)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_with_a_bar_on_the_terminal_stdout_still_goes_into_the_pipe(tmp_path: Path) -> None:
    import pty

    (tmp_path / "script.py").write_text(ON_A_TERMINAL)
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # the end of a pseudo-terminal
        pass
    os.close(ours)
    out = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0
    assert sorted(out.splitlines()) == sorted(f"in row {n}" for n in range(30))
    text = shown.decode()
    assert "in row" not in text and "/30 rows" in text and "30 rows, 0 failed" in text


@rf.program
async def waits(s, n):  # type: ignore[no-untyped-def]
    s += f"{n}" + rf.gen("x")
    await asyncio.sleep(0)
    return n, s["x"]


@BOTH
@pytest.mark.parametrize("takes", [6, 2, 0])
def test_batches_of_async_programs_leave_no_event_loop_behind(eager: bool, takes: int) -> None:
    batch = waits.run_batch(rows(6), backend=Held(100 + takes), eager=eager, as_completed=True, max_in_flight=6)
    assert sorted(run.value[0] for _, run in zip(range(takes), batch, strict=False)) == list(range(100, 100 + takes))
    batch.close()
    del batch
    end = time.monotonic() + 20
    while any(thread.name == "ramify-async" for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)
