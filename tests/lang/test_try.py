"""`try` around states, and reads in odd places: eager equals compiled, no thread is held, cancelling is not caught."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend, hash_reply
from ramify.compiler.frontend import compile_function
from ramify.compiler.pipeline import PIPELINE, run_pipeline
from ramify.ir.errors import Cancelled
from ramify.lang.state import ForkGroup, State
from ramify.runtime.interpreter import Interpreter
from ramify.runtime.request import SamplingParams

from . import laziness, tries
from .comparing import Linked, comparable, outcome, run_once

PROGRAMS = [
    function
    for module in (tries, laziness)
    for function in vars(module).values()
    if inspect.isfunction(function) and list(inspect.signature(function).parameters)[:2] == ["s", "log"]
]


def reply(text: str, params: SamplingParams) -> str:
    if "BOOM" in text:
        raise rf.RamifyError(f"boom at {text[-10:]}")
    return " 42" if "NUM" in text else hash_reply(text, params)


def context_of(error: BaseException | None) -> list[tuple[type, type, bool]]:
    """The types of an error and of the contexts above it, with their causes."""
    found = []
    while error is not None:
        found.append((type(error), type(error.__cause__), error.__suppress_context__))
        error = error.__context__
    return found


def everything(function: FunctionType, compiled: Linked | None) -> dict[str, Any]:
    backend, log = ScriptedBackend(reply), []
    run = run_once(function, compiled, {"log": log}, backend)
    found = outcome(run, lambda file: file in (tries.__file__, laziness.__file__))
    return found | {"log": comparable(log), "requests": sorted(backend.requests), "context": context_of(run.error)}


@pytest.mark.parametrize("function", PROGRAMS, ids=lambda f: f.__name__)
def test_eager_equals_compiled(function: FunctionType) -> None:
    eager = everything(function, None)
    lowered = compile_function(function)
    for disable in ((), [each.name for each in PIPELINE], *([each.name] for each in PIPELINE)):
        module = run_pipeline(lowered.module, disable=disable)
        compiled = everything(function, Linked(Interpreter(module, lowered.python, State, ForkGroup)))
        assert compiled == eager


def test_nothing_but_groups_of_exceptions_stays_eager() -> None:
    about_try = [function for function in PROGRAMS if function.__module__ == tries.__name__]
    eager = {f.__name__: [note.reason for note in compile_function(f).eager] for f in about_try}
    assert {name: reasons for name, reasons in eager.items() if reasons} == {
        "except_group_star": ["`except*` around a state"]
    }


class Gathering(ScriptedBackend):
    """Answers nothing before `count` requests have come."""

    def __init__(self, count: int) -> None:
        super().__init__(reply)
        self.count = count
        self.held: list[Callable[[], Any]] = []

    def generate(self, *args: Any) -> Any:
        self.held.append(lambda: super(Gathering, self).generate(*args))
        if len(self.held) >= self.count:
            held, self.held = self.held, []
            for start in held:
                start()
        return Handle()


class Handle:
    def cancel(self) -> None:
        pass


@rf.program
def careful(s, word: str):
    for _ in range(3):
        try:
            with s.user():
                s += word
            with s.assistant():
                s += rf.gen("x", max_tokens=1)
            try:
                return int(s["x"])
            except ValueError:
                s["x"]["no such thing"]
        except TypeError as error:
            kept = error
        finally:
            s["done"] = True
    return type(kept).__name__, s["done"]


def test_rows_that_wait_in_a_try_hold_no_thread() -> None:
    rows = [{"word": f"{number}"} for number in range(400)]
    before = _host_threads()
    runs = careful.run_batch(rows, backend=Gathering(len(rows)), max_in_flight=len(rows))
    assert {run.value for run in runs} == {("TypeError", True)}
    assert _host_threads() - before < 100


def _host_threads() -> int:
    return sum(thread.name == "ramify-host" for thread in threading.enumerate())


@rf.program
def stubborn(s, log: list):
    while True:
        try:
            s += rf.gen("x")
            s["x"]
        except Exception:
            log.append("caught")
        finally:
            log.append("finally")
            continue  # noqa: B012


def test_a_cancelled_run_is_not_caught_but_its_finally_runs() -> None:
    log: list[str] = []
    (run,) = stubborn.run_batch([{"log": log}], backend=ScriptedBackend(delay=60), timeout=0.05)
    assert isinstance(run.error, Cancelled)
    assert log == ["finally"]


@rf.program
async def tidies_up(s, log: list):
    try:
        s += rf.gen("x") if not log else "x"
        s.text()
        await asyncio.sleep(60)
    except Exception:
        log.append("caught")
    finally:
        await asyncio.sleep(0)
        log.append("finally")
        await asyncio.sleep(0)
        log.append(s.text() == "x")


@pytest.mark.parametrize("log", [[], ["call"]], ids=["in a read", "in a call"])
def test_a_finally_may_await_when_the_run_is_cancelled(log: list) -> None:
    (run,) = tidies_up.run_batch([{"log": log}], backend=ScriptedBackend(delay=60), timeout=0.05)
    assert isinstance(run.error, Cancelled)
    assert log in (["finally"], ["call", "finally", True])


def test_an_error_that_was_caught_does_not_end_the_run() -> None:
    @rf.program
    def forgiving(s):
        t = s.copy()
        t += "BOOM" + rf.gen("x")
        try:
            return t["x"]
        except rf.RamifyError as error:
            return error.message

    for eager in (True, False):
        run = forgiving.run(backend=ScriptedBackend(reply), eager=eager)
        assert run.value == "boom at BOOM" and run.ok
