"""SGLang's calls: run, run_batch, bind, streaming, and how a run's state is read from outside."""

from __future__ import annotations

import asyncio
import io
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import ramify as sgl
from ramify.backends.scripted import ScriptedBackend, hash_reply
from ramify.ir.errors import BackendError, Cancelled, UsageError
from ramify.lang.cli import main
from ramify.lang.session import Session
from ramify.runtime.prompt import UnknownVariable
from ramify.runtime.request import SamplingParams

WAYS = pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])


def failing(text: str, params: SamplingParams) -> str:
    """Fails on prompts that ask for it."""
    if text.endswith("FAIL:"):
        raise BackendError("the server is on fire")
    return hash_reply(text, params)


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend(failing)


@sgl.function
def two_turns(s, first, second="And why?"):  # type: ignore[no-untyped-def]
    s += sgl.system("Be brief.")
    s += sgl.user(first)
    s += sgl.assistant(sgl.gen("one", max_tokens=4))
    s += sgl.user(second)
    s += sgl.assistant("Well," + sgl.gen("two", max_tokens=4) + sgl.select("sure", ["yes", "no"]))
    return s["one"] + "!"


@WAYS
def test_a_run_gives_its_state(backend: ScriptedBackend, eager: bool) -> None:
    state = two_turns.run("Is it?", backend=backend, eager=eager)
    assert isinstance(state, sgl.ProgramState)
    assert state.ret_value == state["one"] + "!" == state.get_var("one") + "!"
    assert "two" in state and "three" not in state
    assert [message["role"] for message in state.messages()] == ["system", "user", "assistant", "user", "assistant"]
    assert state.messages()[-1]["content"] == "Well," + state["two"] + state["sure"]
    assert state.text().startswith("<system>Be brief.")
    assert state.get_meta_info("one")["completion_tokens"] > 0
    assert state.error() is None
    state.sync()
    state["three"] = 3
    state.set_var("four", 4)
    assert state["three"] + state["four"] == 7
    assert state.run.usage.calls == 3
    assert repr(state).startswith("<ProgramState value=")
    with pytest.raises(UnknownVariable, match="no variable 'five'"):
        state["five"]


def test_a_state_can_be_pickled(backend: ScriptedBackend) -> None:
    state = two_turns.run("Is it?", backend=backend, stream=True)
    copied = pickle.loads(pickle.dumps(state))
    assert (copied.text(), copied["one"], copied.ret_value) == (state.text(), state["one"], state.ret_value)


def test_eager_and_compiled_runs_are_the_same(backend: ScriptedBackend) -> None:
    eager, compiled = (two_turns.run("Is it?", backend=backend, temperature=0, eager=eager) for eager in (True, False))
    assert (eager.text(), eager.run.vars, eager.ret_value) == (compiled.text(), compiled.run.vars, compiled.ret_value)


@WAYS
def test_settings_of_a_run_reach_its_gens(eager: bool) -> None:
    seen: list[SamplingParams] = []

    def reply(text: str, params: SamplingParams) -> str:
        seen.append(params)
        return "x"

    @sgl.function
    def program(s):  # type: ignore[no-untyped-def]
        s += "a" + sgl.gen("a") + sgl.gen("b", max_tokens=3, temperature=0.25)

    settings: dict[str, Any] = dict(max_new_tokens=7, top_p=0.5, top_k=-1, stop="\n", use_thread=False)
    program.run(backend=ScriptedBackend(reply), eager=eager, frequency_penalty=0.5, return_logprob=True, **settings)
    assert [(p.max_tokens, p.temperature, p.top_p, p.top_k, p.stop) for p in seen] == [
        (7, 1.0, 0.5, 0, ("\n",)),
        (3, 0.25, 0.5, 0, ("\n",)),
    ]
    assert seen[0].frequency_penalty == 0.5 and seen[0].logprobs == 0


@WAYS
def test_arguments_go_before_settings_of_the_same_name(backend: ScriptedBackend, eager: bool) -> None:
    @sgl.function
    def program(s, n, stream, temperature, stop, max_new_tokens=1):  # type: ignore[no-untyped-def]
        s += f"{n} {stream} {temperature} {stop} {max_new_tokens}" + sgl.gen("x")
        return n

    state = program.run(n=5, stream="brook", temperature="warm", stop="here", backend=backend, eager=eager)
    assert isinstance(state.ret_value, int) and state.text().startswith("5 brook warm here 1")
    (again,) = program.run_batch([dict(n=6, stream="s", temperature="t", stop="u")], backend=backend, temperature=0)
    assert again.ret_value == 6


def test_unknown_names_are_refused(backend: ScriptedBackend) -> None:
    with pytest.raises(UsageError, match="two_turns: missing argument 'first'; unknown argument 'frist'"):
        two_turns.run(frist="x", backend=backend)
    with pytest.raises(UsageError, match="no option 'hurry'"):
        two_turns.run_batch([{"first": "x"}], backend=backend, hurry=True)
    with pytest.raises(UsageError, match="has no argument 'third'"):
        two_turns.bind(third=3)


@WAYS
def test_rows(backend: ScriptedBackend, eager: bool) -> None:
    rows = [{"first": "a"}, ("b",), ["c", "Who?"]]
    states = two_turns.run_batch(rows, backend=backend, num_threads=2, temperature=0, eager=eager)
    alone = [two_turns.run(*arguments, backend=backend, temperature=0) for arguments in (["a"], ["b"], ["c", "Who?"])]
    assert [state.text() for state in states] == [state.text() for state in alone]
    assert two_turns.run_batch([], backend=backend) == []
    with pytest.raises(UsageError, match="row 1 is int"):
        two_turns.run_batch([("a",), 5], backend=backend)
    with pytest.raises(UsageError, match="row 0 has 3 arguments, at most 2"):
        two_turns.run_batch([("a", "b", "c")], backend=backend)
    with pytest.raises(UsageError, match=r"missing argument 'first' \(row 1\)"):
        two_turns.run_batch([("a",), ()], backend=backend)


def test_rows_one_by_one(backend: ScriptedBackend, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"question {number}",) for number in range(20)]
    whole = two_turns.run_batch(rows, backend=backend, temperature=0)
    states = two_turns.run_batch(rows, backend=backend, temperature=0, generator_style=True, progress_bar=True)
    assert next(states)["one"] == whole[0]["one"]
    assert [state.text() for state in states] == [state.text() for state in whole[1:]]
    assert "rows" in capsys.readouterr().err


def test_rows_one_by_one_may_be_left_early() -> None:
    slow = ScriptedBackend(delay=0.01)
    states = two_turns.run_batch([("a",)] * 500, backend=slow, num_threads=1, generator_style=True)
    assert next(states).error() is None
    states.close()
    assert len(slow.requests) < 500


def test_a_row_that_fails_leaves_the_others_alone(backend: ScriptedBackend) -> None:
    @sgl.function
    def program(s, text):  # type: ignore[no-untyped-def]
        s += text + sgl.gen("x")
        return s["x"].strip()

    good, bad = program.run_batch([{"text": "a"}, {"text": "FAIL:"}], backend=backend)
    assert good.error() is None and good.ret_value
    assert isinstance(bad.error(), BackendError) and bad.ret_value is None
    with pytest.raises(BackendError, match="on fire"):
        bad["x"]


@WAYS
def test_bound_arguments(backend: ScriptedBackend, eager: bool) -> None:
    bound = two_turns.bind(second="Who?")
    state = bound.run("Is it?", backend=backend, temperature=0, eager=eager)
    assert state.messages()[3]["content"] == "Who?"
    assert bound.run(first="Is it?", second="When?", backend=backend).messages()[3]["content"] == "When?"
    assert bound.bind(first="Now").run(backend=backend).messages()[1]["content"] == "Now"
    (row,) = bound.run_batch([("Is it?",)], backend=backend, temperature=0)
    assert row.text() == state.text()

    @sgl.function
    def outer(s):  # type: ignore[no-untyped-def]
        return bound(s, "Inside?")

    inside = outer.run(backend=backend, temperature=0, eager=eager)
    assert [message["content"] for message in inside.messages()][1::2] == ["Inside?", "Who?"]
    assert inside.ret_value == inside["one"] + "!"


@sgl.program
def own_program(s, text):  # type: ignore[no-untyped-def]
    s += text + sgl.gen("inner", max_tokens=2)
    return s["inner"]


@sgl.function
def calls_own(s):  # type: ignore[no-untyped-def]
    return own_program(s, "one:") + own_program(s, "two:")


@sgl.program
def calls_function(s):  # type: ignore[no-untyped-def]
    return calls_own(s) + two_turns(s, "And?")


@WAYS
def test_functions_and_programs_call_one_another(backend: ScriptedBackend, eager: bool) -> None:
    run = calls_function.run(backend=backend, eager=eager)
    assert run.value.endswith("!") and run.usage.calls == 5
    assert calls_own.run(backend=backend, temperature=0, eager=eager).ret_value
    assert " in @" in calls_function.compile().ir


def test_calling_without_a_state_runs(backend: ScriptedBackend) -> None:
    assert two_turns("Is it?", backend=backend)["one"]


@WAYS
def test_functions_of_a_class(backend: ScriptedBackend, eager: bool) -> None:
    class Prompts:
        asks = two_turns

    assert Prompts.asks.run("Is it?", backend=backend, eager=eager)["one"]


def test_what_a_function_looks_like() -> None:
    assert two_turns.__name__ == "two_turns" and two_turns.arg_names == ["first", "second"]
    assert repr(two_turns) == "<function two_turns(first, second='And why?')>"
    assert "lm.select" in two_turns.trace(first="x").ir

    @sgl.function(num_api_spec_tokens=64)
    def program(state, question):  # type: ignore[no-untyped-def]
        state += question

    assert program.run("What?").text() == "What?"


# Streaming.


@WAYS
def test_the_text_comes_in_pieces(backend: ScriptedBackend, eager: bool) -> None:
    state = two_turns.run("Is it?", backend=backend, stream=True, eager=eager)
    pieces = list(state.text_iter())
    assert len(pieces) > 12 and "".join(pieces) == state.text()
    assert "".join(state.text_iter()) == state.text()


@WAYS
def test_a_variable_comes_in_pieces(backend: ScriptedBackend, eager: bool) -> None:
    state = two_turns.run("Is it?", backend=backend, stream=True, eager=eager)
    one, two, sure = (list(state.text_iter(name)) for name in ("one", "two", "sure"))
    assert len(one) > 1 and "".join(one) == state["one"]
    assert "".join(two) == state["two"] and sure == [state["sure"]]


@WAYS
def test_run_returns_before_the_text_has_come(eager: bool) -> None:
    may_answer = threading.Event()

    @sgl.function
    def program(s):  # type: ignore[no-untyped-def]
        s += "before" + sgl.gen("x")
        may_answer.wait()
        s += sgl.gen("y")

    state = program.run(backend=ScriptedBackend(lambda text, params: "x y z"), stream=True, eager=eager)
    assert repr(state) == "<ProgramState running>"
    assert list(state.text_iter("x")) == ["x", " y", " z"]
    may_answer.set()
    assert state.text() == "beforex y zx y z"


def test_without_stream_the_iterators_give_all_at_once(backend: ScriptedBackend) -> None:
    state = two_turns.run("Is it?", backend=backend)
    assert list(state.text_iter()) == [state.text()] and list(state.text_iter("one")) == [state["one"]]

    async def collect() -> list[Any]:
        pieces = [piece async for piece in state.text_async_iter()]
        return pieces + [pair async for pair in state.text_async_iter("one", return_meta_data=True)]

    assert asyncio.run(collect()) == [state.text(), (state["one"], state.get_meta_info("one"))]


@WAYS
def test_streaming_in_asyncio(backend: ScriptedBackend, eager: bool) -> None:
    async def both() -> tuple[list[str], list[str], list[Any]]:
        states = [two_turns.run(text, backend=backend, stream=True, eager=eager) for text in ("Is it?", "Or not?")]

        async def pieces(state: sgl.ProgramState) -> list[str]:
            return [piece async for piece in state.text_async_iter()]

        first, second = await asyncio.gather(*map(pieces, states))
        pairs = [pair async for pair in states[0].text_async_iter("one", return_meta_data=True)]
        assert "".join(first) == states[0].text() and "".join(second) == states[1].text()
        return first, second, pairs

    first, second, pairs = asyncio.run(both())
    assert len(first) > 12 and len(second) > 12
    *pieces, (last, meta) = pairs
    assert [each["completion_tokens"] for _, each in pieces] == list(range(1, len(pieces) + 1))
    assert last == "" and meta["finish_reason"] in ("stop", "length")


@WAYS
def test_joined_branches_are_part_of_the_streamed_text(backend: ScriptedBackend, eager: bool) -> None:
    @sgl.function
    def program(s):  # type: ignore[no-untyped-def]
        s += "start"
        forks = s.fork(2)
        forks += lambda i: f" {i}:" + sgl.gen("x")
        forks.join("concate_and_append")
        s += " end" + sgl.gen("y")

    state = program.run(backend=backend, stream=True, eager=eager)
    assert "".join(state.text_iter()) == state.text()
    assert state.text().count(":") == 2


@WAYS
def test_samples_and_logprobs(backend: ScriptedBackend, eager: bool) -> None:
    @sgl.function
    def program(s):  # type: ignore[no-untyped-def]
        s += "a" + sgl.gen("many", max_tokens=3) + sgl.gen("one", n=1, max_tokens=3)
        return s["many"]

    settings: dict[str, Any] = dict(n=3, return_logprob=True, top_logprobs_num=2, backend=backend, eager=eager, seed=1)
    state = program.run(**settings)
    assert len(state.ret_value) == len(state["many"]) == 3 and isinstance(state["one"], str)
    assert state.text() == "a" + state["many"][0] + state["one"]
    assert [len(info["output_token_logprobs"]) for info in state.get_meta_info("many")] == [3, 3, 3]
    streamed = program.run(stream=True, **settings)
    assert "".join(streamed.text_iter()) == state.text() and "".join(streamed.text_iter("many")) == state["many"][0]


@WAYS
def test_a_streamed_variable_that_is_assigned(backend: ScriptedBackend, eager: bool) -> None:
    @sgl.function
    def program(s):  # type: ignore[no-untyped-def]
        s["x"] = 5
        s += "text" + sgl.score("y", "z")

    assert list(program.run(backend=backend, stream=True, eager=eager).text_iter("x")) == ["5"]
    state = program.run(backend=backend, stream=True, eager=eager)
    assert list(state.text_iter("y")) == [str(state["y"])]
    with pytest.raises(UnknownVariable):
        list(program.run(backend=backend, stream=True, eager=eager).text_iter("z"))


@WAYS
def test_a_streamed_run_can_be_cancelled(eager: bool) -> None:
    state = two_turns.run("Is it?", backend=ScriptedBackend(delay=60), stream=True, eager=eager)
    state.cancel()
    with pytest.raises(Cancelled):
        state["one"]
    with pytest.raises(Cancelled):
        list(state.text_iter())


# Errors.


@sgl.function
def burns(s):  # type: ignore[no-untyped-def]
    s += "good:" + sgl.gen("good")
    s += "FAIL:" + sgl.gen("bad")
    s += "more" + sgl.gen("more")


@WAYS
@pytest.mark.parametrize("stream", [False, True])
def test_a_generation_that_fails_is_told_where_it_is_read(backend: ScriptedBackend, eager: bool, stream: bool) -> None:
    state = burns.run(backend=backend, stream=stream, eager=eager)
    assert state["good"]
    assert isinstance(state.error(), BackendError)
    for name in ("bad", "more", "never"):
        for _ in range(2):
            with pytest.raises(BackendError, match="on fire"):
                state[name]
    with pytest.raises(BackendError, match="on fire"):
        state.get_meta_info("bad")
    assert "bad" not in state and state.ret_value is None
    assert state.text().endswith("FAIL:") and repr(state).startswith("<ProgramState failed: ")
    with pytest.raises(BackendError, match="on fire"):
        list(state.text_iter())
    with pytest.raises(BackendError, match="on fire"):
        list(state.text_iter("bad"))


@WAYS
def test_what_the_program_raises_is_raised_by_run(backend: ScriptedBackend, eager: bool) -> None:
    @sgl.function
    def reads(s):  # type: ignore[no-untyped-def]
        s += "FAIL:" + sgl.gen("bad")
        return s["bad"]

    @sgl.function
    def breaks(s):  # type: ignore[no-untyped-def]
        raise LookupError("mine")

    with pytest.raises(BackendError, match="on fire"):
        reads.run(backend=backend, eager=eager)
    with pytest.raises(LookupError, match="mine"):
        breaks.run(backend=backend, eager=eager)
    streamed = breaks.run(backend=backend, eager=eager, stream=True)
    assert isinstance(streamed.error(), LookupError)
    with pytest.raises(LookupError, match="mine"):
        streamed["x"]


@WAYS
def test_a_program_asks_for_its_own_error(backend: ScriptedBackend, eager: bool) -> None:
    @sgl.function
    def program(s):  # type: ignore[no-untyped-def]
        s += "x" + sgl.gen("good")
        before = s.error()
        branch = s.copy()
        branch += "FAIL:" + sgl.gen("bad")
        return before, type(branch.error()).__name__

    state = program.run(backend=backend, eager=eager)
    assert state.ret_value == (None, "BackendError") and state.error() is None


# The command line and the REPL.


def test_the_command_line_runs_functions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "asking.py"
    file.write_text(
        "import ramify as sgl\n\n@sgl.function\ndef ask(s, q):\n    s += q + sgl.gen('x')\n    return s['x']\n"
    )
    assert main(["run", str(file), "--arg", "q=hello", "--model", "scripted", "--quiet"]) == 0
    assert capsys.readouterr().out.strip()
    assert main(["check", f"{file}:ask"]) == 0


def test_the_repl_shows_functions_as_programs(backend: ScriptedBackend) -> None:
    out = io.StringIO()
    session = Session(out)
    session.names["ask"] = two_turns
    session.names["backend"] = backend
    session.execute("asked = ask")
    session.execute("asked.run('Is it?', backend=backend)['one']")
    assert session.last_run is not None and session.last_run["one"] in out.getvalue()
