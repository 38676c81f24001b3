"""What is left of a run: what can be asked of it, how it is shown, and that it can go to another process."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import RecordedError, UsageError
from ramify.lang.run import Run
from ramify.runtime.prompt import UnknownVariable

BOTH = pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])


class Odd(Exception):
    """An error that cannot be made from its args alone."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


@rf.program
def ask(s, question: str):  # type: ignore[no-untyped-def]
    s += rf.user(question)
    s += rf.assistant(rf.gen("answer", max_tokens=3, logprobs=1))
    s += rf.user("Sure?") + rf.assistant(rf.select("sure", ["yes", "no"]))
    s["note"] = [question]
    if question == "odd":
        raise Odd("very", "odd")
    if question == "missing":
        return s["no such"]
    return {"answer": s["answer"], "sure": s["sure"]}


def run_of(question: str, eager: bool) -> Run:
    (run,) = ask.run_batch([{"question": question}], backend=ScriptedBackend(), eager=eager)
    return run


@BOTH
def test_a_run_goes_to_another_process(eager: bool) -> None:
    run = run_of("why?", eager)
    again = pickle.loads(pickle.dumps(run))
    for name in ("value", "text", "messages", "vars", "usage", "trace", "error", "traceback", "row", "ok"):
        assert getattr(again, name) == getattr(run, name), name
    assert again["answer"] == run["answer"] and "sure" in again and "other" not in again
    assert again.get_meta_info("answer") == run.get_meta_info("answer")
    assert again.get_meta_info("sure") == run.get_meta_info("sure")
    assert repr(again) == repr(run)
    assert pickle.loads(pickle.dumps(again)).trace == run.trace
    record = again.trace[0]
    assert (record.kind, record.name, record.finish_reason) == ("gen", "answer", run.trace[0].finish_reason)
    assert record.prompt_tokens > 0 and record.generated_tokens == 3 and record.wall_ms >= 0 <= record.queue_ms
    assert record.span.source_line().strip().startswith("s += rf.assistant(rf.gen")
    with pytest.raises(UsageError, match="the state of a run stays in the process that ran it"):
        again.state  # noqa: B018
    with pytest.raises(UnknownVariable, match="has no variable 'other'; it has: 'answer', 'sure', 'note'"):
        again["other"]
    with pytest.raises(UsageError, match="'note' was assigned, not generated"):
        again.get_meta_info("note")


@BOTH
def test_so_does_one_that_failed(eager: bool) -> None:
    run = run_of("missing", eager)
    again = pickle.loads(pickle.dumps(run))
    assert type(again.error) is UnknownVariable and str(again.error) == str(run.error)
    assert again.traceback == run.traceback and "test_run.py" in again.traceback
    assert again.vars == run.vars and again.value is None


@BOTH
def test_an_error_that_another_process_could_not_make_is_told(eager: bool) -> None:
    run = run_of("odd", eager)
    again = pickle.loads(pickle.dumps(run))
    assert type(run.error) is Odd
    assert isinstance(again.error, RecordedError) and again.error.kind == "Odd"
    assert str(again.error) == "Odd: very odd"
    assert 'raise Odd("very", "odd")' in again.traceback


@rf.program
def returns(s, value):  # type: ignore[no-untyped-def]
    s += "x" + rf.gen("x")
    s["kept"] = value
    return 3


@rf.program
def returns_state(s):  # type: ignore[no-untyped-def]
    s += "x"
    return [s]


@BOTH
def test_what_cannot_be_pickled_is_named(eager: bool) -> None:
    run = returns.run(value=threading.Lock(), backend=ScriptedBackend(), eager=eager)
    with pytest.raises(pickle.PicklingError, match=r"the variable 'kept' of the run \(lock\) cannot be pickled"):
        pickle.dumps(run)
    run = returns_state.run(backend=ScriptedBackend(), eager=eager)
    with pytest.raises(pickle.PicklingError, match=r"the value of the run \(list\) .*: a State belongs to its run"):
        pickle.dumps(run)


def test_copies_of_a_run(eager: bool = False) -> None:
    run = run_of("why?", eager)
    assert copy.deepcopy(run).vars == run.vars


def shown(run: Run) -> str:
    out = io.StringIO()
    run.show(out)
    return out.getvalue()


@BOTH
def test_a_run_shows_all_that_it_is_asked_for(eager: bool) -> None:
    run = run_of("wh\x1by?", eager)
    lines = shown(run).splitlines()
    assert lines[:4] == [
        r"[user] wh\x1by?",
        f"[assistant] {run['answer']}",
        "[user] Sure?",
        f"[assistant] {run['sure']}",
    ]
    assert lines[4:8] == [
        f"answer = {run['answer']!r}",
        f"sure = {run['sure']!r}",
        "note = ['wh\\x1by?']",
        f'value: {{"answer": "{run["answer"]}", "sure": "{run["sure"]}"}}',
    ]
    words = [line.split() for line in lines[8:11]]
    assert words[0] == ["gen", "branch", "text", "prompt", "cached", "generated", "queue", "time", "finish", "line"]
    assert (words[1][0], words[1][-1]) == ("answer", "test_run.py:31")
    assert (words[2][0], words[2][-1]) == ("sure", "test_run.py:32")
    assert lines[11].startswith("prompt ") and len(lines) == 12
    assert shown(pickle.loads(pickle.dumps(run))) == shown(run)


@BOTH
def test_a_run_that_failed_shows_why(eager: bool) -> None:
    text = shown(run_of("odd", eager))
    assert 'raise Odd("very", "odd")' in text and "value:" not in text
    assert "[user] odd\n" in text


def test_rows_are_in_the_repr() -> None:
    runs: Any = ask.run_batch([{"question": "a"}, {"question": "odd"}], backend=ScriptedBackend())
    assert repr(runs[0]).startswith("<Run of row 0 value={'answer':")
    assert repr(runs[1]) == "<Run of row 1 failed: Odd('very odd')>"
    assert repr(ask.run("a", backend=ScriptedBackend())).startswith("<Run value={'answer':")
