"""Programs: how they are run, from where, with which options, and how runs end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import decimal
import io
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import BackendError, Cancelled, RequestError, UsageError

BOTH = pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])
USER: contextvars.ContextVar[str] = contextvars.ContextVar("USER", default="nobody")


def length(text: str, _: Any) -> str:
    return f"<{len(text)}>"


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend(length)


@rf.program
def ask(s, question, times=1):  # type: ignore[no-untyped-def]
    for number in range(times):
        s += question + rf.gen(f"x{number}")
    return s["x0"]


@rf.program
def fails(s, when):  # type: ignore[no-untyped-def]
    s += "start" + rf.gen("x")
    if when == "host":
        {}["key"]
    s += rf.gen("y")
    return s["y"]


@BOTH
def test_run(backend: ScriptedBackend, eager: bool) -> None:
    run = ask.run("abc", times=2, backend=backend, eager=eager)
    assert (run.value, run["x1"], run.text, run.ok, run.error, run.traceback) == (
        "<3>", "<9>", "abc<3>abc<9>", True, None, "",
    )  # fmt: skip
    assert run.usage.calls == 2 and run.usage.wall_ms > 0
    assert [(record.name, record.text) for record in run.trace] == [("x0", "<3>"), ("x1", "<9>")]
    assert repr(run) == "<Run value='<3>' vars=['x0', 'x1']>"


def test_arguments_are_checked_before_anything_runs(backend: ScriptedBackend) -> None:
    for call in ("missing argument 'question'", lambda: ask.run()), (
        "unknown arguments 'a', 'b'", lambda: ask.run("q", a=1, b=2)
    ), ("3 positional arguments given, at most 2", lambda: ask.run(1, 2, 3)):  # fmt: skip
        with pytest.raises(UsageError, match=call[0]) as caught:
            call[1]()  # type: ignore[operator]
        assert "ask(question, times=1)" in str(caught.value)
    with pytest.raises(UsageError, match=r"missing argument 'question' \(row 1\)"):
        ask.run_batch([{"question": "a"}, {"times": 2}], backend=backend)
    with pytest.raises(UsageError, match="row 0 is str"):
        ask.run_batch(["question"], backend=backend)  # type: ignore[list-item]
    assert backend.requests == []


def test_what_is_no_program() -> None:
    with pytest.raises(UsageError, match="takes no state"):

        @rf.program
        def stateless() -> None: ...

    with pytest.raises(UsageError, match="takes a function, not type"):
        rf.program(int)


def test_options_do_not_clash_with_parameters(backend: ScriptedBackend) -> None:
    @rf.program
    def clash(s, stream, timeout, n, eager="mine"):  # type: ignore[no-untyped-def]
        s += "x" + rf.gen("a")
        return stream, timeout, n, eager

    assert clash.run(1, timeout=2, n=3, backend=backend).value == (1, 2, 3, "mine")
    run = clash.options(eager=True, backend=backend).run(stream=1, timeout=2, n=3, eager=4)
    assert run.value == (1, 2, 3, 4)
    with pytest.raises(UsageError, match="no option 'nonsense'"):
        clash.options(nonsense=1)
    with pytest.raises(RequestError, match="temperature"):
        clash.options(temperature=-1)


@BOTH
def test_sampling_defaults_come_from_program_options_and_gen(eager: bool) -> None:
    seen: list[Any] = []

    @rf.program(max_tokens=5, stop=["a", "b"], eager=eager, backend=ScriptedBackend(lambda _, p: seen.append(p) or "x"))
    def program(s):  # type: ignore[no-untyped-def]
        s += rf.gen("x") + rf.gen("y", max_tokens=7)

    program.options(temperature=0.5).run()
    assert [(p.max_tokens, p.temperature, p.stop) for p in seen] == [(5, 0.5, ("a", "b")), (7, 0.5, ("a", "b"))]


@BOTH
def test_errors_reach_the_caller_as_they_are(backend: ScriptedBackend, eager: bool) -> None:
    with pytest.raises(KeyError, match="key") as caught:
        fails.run("host", backend=backend, eager=eager)
    frames = [(frame.name, frame.path.name) for frame in caught.traceback]  # type: ignore[union-attr]
    assert frames[-1] == ("fails", "test_program.py")
    assert not [name for name, _ in frames[1:] if name in ("execute", "step", "_advance", "_call")]


@BOTH
def test_a_failed_gen_fails_what_depends_on_it_with_the_same_cause(eager: bool) -> None:
    error = BackendError("no power")
    with pytest.raises(BackendError, match="no power") as caught:
        fails.run("never", backend=ScriptedBackend(lambda *_: error), eager=eager)
    assert caught.value is error and error.span is not None
    assert "rf.gen" in error.span.source_line()


@BOTH
def test_a_failure_nobody_reads_is_reported_at_the_end(eager: bool) -> None:
    @rf.program(eager=eager, backend=ScriptedBackend(lambda text, _: BackendError(text), delay=0.01))
    def unread(s):  # type: ignore[no-untyped-def]
        t = s.copy()
        s += "first" + rf.gen("x")
        t += "second" + rf.gen("y")
        return "done"

    with pytest.raises(BackendError, match="first"):
        unread.run()


@BOTH
def test_an_error_that_the_program_handles_is_over(eager: bool) -> None:
    @rf.program(eager=eager, backend=ScriptedBackend(lambda text, _: BackendError("no") if "bad" in text else "ok"))
    def careful(s):  # type: ignore[no-untyped-def]
        t = s.copy()
        t += "bad" + rf.gen("x")
        try:
            value = t["x"]
        except BackendError:
            value = "default"
        s += value + rf.gen("y")
        return value, s["y"]

    assert careful.run().value == ("default", "ok")


@BOTH
def test_a_partial_run_shows_how_far_it_came(backend: ScriptedBackend, eager: bool) -> None:
    (run,) = fails.run_batch([{"when": "host"}], backend=backend, eager=eager)
    assert not run.ok and run.value is None and isinstance(run.error, KeyError)
    assert run.text.startswith("start") and run.messages == []
    assert "KeyError: 'key'" in run.traceback and '{}["key"]' in run.traceback
    assert repr(run) == "<Run of row 0 failed: KeyError('key')>"


@BOTH
def test_streams_arrive_on_the_calling_thread_and_in_order(eager: bool) -> None:
    threads, events = set(), []

    def see(event: Any) -> None:
        threads.add(threading.current_thread())
        events.append((event.branch, event.kind, event.text))

    @rf.program
    def forks(s):  # type: ignore[no-untyped-def]
        s += rf.user("hi" + rf.gen("a"))
        for branch in s.fork(2):
            branch += "b" + rf.gen("x")

    forks.run(backend=ScriptedBackend(lambda *_: "one two", delay=0.01), stream=see, eager=eager)
    assert threads == {threading.current_thread()}
    main = [event[1:] for event in events if event[0] == ()]
    assert main == [("role", "user"), ("text", "hi"), ("gen", "one"), ("gen", " two"), ("role", "user")]
    assert [event[1:] for event in events if event[0] == (1,)] == [("text", "b"), ("gen", "one"), ("gen", " two")]


@BOTH
def test_a_stream_that_raises_ends_the_run(eager: bool) -> None:
    def stop(event: Any) -> None:
        raise RuntimeError("seen enough")

    with pytest.raises(RuntimeError, match="seen enough"):
        ask.run("q", times=50, backend=ScriptedBackend(length, delay=0.05), stream=stop, eager=eager)


@BOTH
def test_timeouts(eager: bool) -> None:
    begun = time.perf_counter()
    with pytest.raises(Cancelled, match=r"timeout of 0\.05 s"):
        ask.run("q", backend=ScriptedBackend(length, delay=30), timeout=0.05, eager=eager)
    assert time.perf_counter() - begun < 5


@BOTH
def test_arun_inside_a_running_loop(backend: ScriptedBackend, eager: bool) -> None:
    async def main() -> list[rf.Run]:
        events: list[Any] = []
        program = ask.options(backend=backend, eager=eager, stream=events.append)
        runs = await asyncio.gather(*(program.arun(f"{n}" * n) for n in range(1, 6)))
        assert events
        with pytest.raises(KeyError):
            await fails.options(backend=backend, eager=eager).arun("host")
        # The blocking form works there too.
        assert ask.run("abc", backend=backend, eager=eager).value == "<3>"
        return runs

    assert [run.value for run in asyncio.run(main())] == [f"<{n}>" for n in range(1, 6)]


def test_a_cancelled_arun_cancels_the_run() -> None:
    backend = ScriptedBackend(length, delay=30)

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ask.arun("q", backend=backend), 0.05)

    asyncio.run(main())


def test_the_end_of_an_arun_finds_the_callers_loop_closed(capfd: pytest.CaptureFixture[str]) -> None:
    @rf.program
    def sleeps(s):  # type: ignore[no-untyped-def]
        s += rf.gen("x")
        time.sleep(0.2)

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(sleeps.arun(backend=ScriptedBackend(), stream=lambda event: None), 0.05)

    with contextlib.redirect_stderr(stderr := io.StringIO()):
        asyncio.run(main())
        time.sleep(0.3)
    assert stderr.getvalue() + capfd.readouterr().err == ""


@BOTH
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"timeout": "1"}, "timeout is a number of seconds above 0, or None for no limit; got '1'"),
        ({"timeout": 0}, "timeout is a number of seconds above 0"),
        ({"stream": True}, "stream is a function that is called with each StreamEvent, not bool: True"),
        ({"backend": 5}, "a backend is a name, a directory or a Backend, not int: 5"),
    ],
)
def test_options_that_cannot_work(backend: ScriptedBackend, eager: bool, option: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ask.options(backend=backend).run("q", eager=eager, **option)
    with pytest.raises(UsageError, match=message):
        ask.options(backend=backend, eager=eager).options(**option).run_batch([{"question": "q"}])


@BOTH
def test_two_threads_run_programs_at_once(eager: bool) -> None:
    backend = ScriptedBackend(length, delay=0.002)
    results: dict[int, list[Any]] = {}

    def work(n: int) -> None:
        results[n] = [ask.run("q" * n, times=2, backend=backend, eager=eager).text for _ in range(10)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(set(texts) == {f"{'q' * n}<{n}>{'q' * n}<{2 * n + 3}>"} for n, texts in results.items())


@BOTH
def test_programs_that_run_programs_cannot_starve(backend: ScriptedBackend, eager: bool) -> None:
    @rf.program
    def nested(s, depth):  # type: ignore[no-untyped-def]
        s += f"{depth}"
        if depth:
            return 1 + nested.run(depth - 1, backend=backend, eager=eager).value
        s += rf.gen("x")
        return 0

    runs = nested.run_batch([{"depth": 12}] * 20, backend=backend, eager=eager)
    assert [run.value for run in runs] == [12] * 20


@BOTH
def test_a_program_called_with_a_state_is_a_part_of_it(backend: ScriptedBackend, eager: bool) -> None:
    @rf.program
    def whole(s):  # type: ignore[no-untyped-def]
        first = ask(s, "abc")
        return first, s.text(), ask("xy", backend=backend, eager=eager).value

    assert whole.run(backend=backend, eager=eager).value == ("<3>", "abc<3>", "<2>")


@BOTH
def test_context_variables(backend: ScriptedBackend, eager: bool) -> None:
    @rf.program
    def who(s):  # type: ignore[no-untyped-def]
        s += "x" + rf.gen("x")
        first = USER.get()
        decimal.setcontext(decimal.Context(prec=3))
        USER.set("eve")
        s += "y" + rf.gen("y")
        return first, USER.get(), str(decimal.Decimal(2) / 3)

    token = USER.set("ada")
    try:
        assert who.run(backend=backend, eager=eager).value == ("ada", "eve", "0.667")
        assert USER.get() == "ada" and decimal.getcontext().prec == 28
    finally:
        USER.reset(token)


@BOTH
def test_stop_iteration_comes_out_as_itself(backend: ScriptedBackend, eager: bool) -> None:
    @rf.program
    def exhausted(s):  # type: ignore[no-untyped-def]
        s += "x" + rf.gen("x")
        return next(iter(()))

    with pytest.raises(StopIteration):
        exhausted.run(backend=backend, eager=eager)


def test_a_rebound_helper_is_seen(backend: ScriptedBackend) -> None:
    namespace = globals()

    def other(s):  # type: ignore[no-untyped-def]
        return "two"

    @rf.program
    def uses(s):  # type: ignore[no-untyped-def]
        return tail(s)

    assert uses.run(backend=backend).value == "one"
    old = namespace["tail"]
    try:
        namespace["tail"] = other
        assert uses.run(backend=backend).value == "two"
    finally:
        namespace["tail"] = old


def tail(s):  # type: ignore[no-untyped-def]
    s += "tail"
    return "one"


def test_defaults_and_aliases(backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    from ramify.lang.options import default_backend

    assert set(rf.__all__) <= set(dir(rf))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rf.nothing  # noqa: B018
    monkeypatch.setenv("RAMIFY_MODEL", "/some/model")
    assert default_backend() == "/some/model"
    rf.set_default_backend(backend)
    try:
        assert ask.run("abc").value == "<3>"
    finally:
        rf.set_default_backend(None)


def test_importing_ramify_loads_neither_torch_nor_a_compiler() -> None:
    code = (
        "import sys, ramify; ramify.program; assert not {'torch', 'tokenizers', 'ramify.compiler'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


INTERRUPTED = """
import sys, threading, time
import ramify as rf
from ramify.backends.scripted import ScriptedBackend

@rf.program(backend=ScriptedBackend(delay=60), eager={eager})
def slow(s, n):
    s += "x" + rf.gen("x")
    return s["x"]

finished = []
fast = ScriptedBackend()
try:
    print("ready", flush=True)
    if {batch}:
        slow.run_batch([dict(n=n) for n in range(500)], on_result=lambda n, run: finished.append(n))
    else:
        slow.run(1)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("batch", [False, True], ids=["run", "batch"])
@BOTH
def test_ctrl_c_is_prompt(eager: bool, batch: bool, tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED.format(eager=eager, batch=batch))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.7)
    begun = time.perf_counter()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert out == "interrupted\n" and process.returncode == 0
    assert time.perf_counter() - begun < 8


@rf.program
def drafted(s):  # type: ignore[no-untyped-def]
    draft = s.copy()
    draft += rf.gen("x")
    return draft["x"]


def test_passes_can_be_left_out(backend: ScriptedBackend) -> None:
    plain = drafted.options(disable="promote", backend=backend)
    assert "cell.new" in plain.compile().ir and "cell.new" not in drafted.compile().ir
    assert plain.compile() is drafted.options(disable=["promote"]).compile()
    assert plain.run().value == drafted.run(backend=backend).value
    with pytest.raises(UsageError, match="there is no pass 'promotion'"):
        drafted.options(disable="promotion")
    with pytest.raises(UsageError, match="there is no pass 'frontend'"):
        drafted.options(disable=["frontend"])
    with pytest.raises(UsageError, match="disable takes the name of a pass or a list of names, not int"):
        drafted.options(disable=3)


@BOTH
@pytest.mark.parametrize("place", ["enter", "exit"])
def test_errors_inside_a_with_name_the_users_line(backend: ScriptedBackend, eager: bool, place: str) -> None:
    @rf.program
    def nests(s):
        with s.user():
            s += "a"
            if place == "exit":
                s.user_end()
            else:
                with s.assistant():
                    s += "b"

    (run,) = nests.run_batch([{}], backend=backend, eager=eager)
    first = nests.fn.__code__.co_firstlineno
    line = first + (2 if place == "exit" else 7)
    assert isinstance(run.error, UsageError)
    assert (Path(run.error.span.file).name, run.error.span.line) == ("test_program.py", line)
    frames = traceback.extract_tb(run.error.__traceback__)
    assert (Path(frames[-1].filename).name, frames[-1].lineno) == ("test_program.py", line)
    assert str(run.error).startswith(f"{__file__}:{line}\n")


def test_a_program_without_a_state_is_refused_where_it_stands() -> None:
    with pytest.raises(UsageError, match="program lost takes no state") as caught:

        @rf.program(
            max_tokens=3,
        )
        def lost():
            pass

    assert caught.value.span.source_line().strip() == "def lost():"


@BOTH
def test_an_expression_in_an_f_string_is_refused(eager: bool) -> None:
    """The text would hold a description of the call, and nothing would be generated."""

    @rf.program
    def ask(s):
        s += f"The answer is {rf.gen('answer')}."

    with pytest.raises(UsageError, match="cannot be formatted into text") as caught:
        ask.run(eager=eager)
    assert "rf.gen('answer')" in str(caught.value) and "join them with +" in str(caught.value)


@BOTH
def test_a_plus_on_the_wrong_side_is_explained(eager: bool) -> None:
    @rf.program
    def ask(s):
        s = +rf.gen("answer")  # noqa: F841 (`s =+ ...`)

    with pytest.raises(UsageError, match=r"write `s \+= ...`"):
        ask.run(eager=eager)


@BOTH
def test_a_misspelled_variable_is_named(eager: bool) -> None:
    @rf.program
    def ask(s):
        s["answer"] = 1
        return s["anwser"]

    with pytest.raises(KeyError, match="did you mean 'answer'"):
        ask.run(eager=eager)


def test_python_can_suggest_a_name_for_one_that_is_none() -> None:
    """It does so where an AttributeError says what was looked for and where, among the names of `dir`."""
    with pytest.raises(AttributeError) as caught:
        rf.gen_itn  # type: ignore[attr-defined]  # noqa: B018
    assert caught.value.name == "gen_itn" and caught.value.obj is rf
    assert {"OpenAI", "RuntimeEndpoint", "gen"} <= set(dir(rf))


def test_an_option_as_an_argument_says_where_it_belongs() -> None:
    @rf.program
    def ask(s):
        s += "x"

    with pytest.raises(UsageError, match=r"ask\.options\(temperature=\.\.\.\)"):
        ask.run(temperature=1)
    with pytest.raises(UsageError, match="did you mean 'temperature'"):
        ask.options(temprature=1)


@rf.program
def read_again(s):  # type: ignore[no-untyped-def]
    s += "q" + rf.gen("x")
    try:
        first = s["x"]
    finally:
        first = len(s["x"])
    return first


def test_what_failed_and_is_read_again_is_told_with_both_lines() -> None:
    places = []
    for eager in (True, False):
        with pytest.raises(BackendError) as failure:
            read_again.run(backend=ScriptedBackend(lambda *_: BackendError("no")), eager=eager)
        frames = traceback.extract_tb(failure.value.__traceback__)
        places.append([frame.lineno for frame in frames if frame.name == "read_again"])
    assert places[0] == places[1] and len(places[0]) == 2


@rf.program
def says(s, part, count):  # type: ignore[no-untyped-def]
    s += part
    s.fork(count)


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("arguments", [(5, 1), ("a", "b")])
def test_of_what_ramify_says_is_wrong_the_users_line_stands_last(
    backend: ScriptedBackend, eager: bool, arguments: tuple[Any, Any]
) -> None:
    with pytest.raises(TypeError) as caught:
        says.run(*arguments, backend=backend, eager=eager)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert frames[-1].name == "says" and frames[-1].line in ("s += part", "s.fork(count)")


@pytest.mark.parametrize("eager", [True, False])
def test_a_fault_of_ramify_shows_where_it_is(eager: bool) -> None:
    with pytest.raises(AttributeError) as caught:
        says.run(rf.user("a"), 1, backend=ScriptedBackend(chat=None), eager=eager)  # type: ignore[arg-type]
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "says" in names[:-1]


@rf.program
def yields(s):  # type: ignore[no-untyped-def]
    s += "a"
    yield s


@rf.program
async def yields_later(s):  # type: ignore[no-untyped-def]
    s += "a"
    yield s


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("program", [yields, yields_later], ids=lambda p: p.name)
def test_generators_are_refused(backend: ScriptedBackend, program: rf.Program, eager: bool) -> None:
    for run in (lambda: program.run(backend=backend, eager=eager), lambda: program.run_batch([{}], eager=eager)):
        with pytest.raises(rf.RamifyError, match="`yield` cannot stand in a program") as caught:
            run()
        assert caught.value.span.source_line().strip() == "yield s"
