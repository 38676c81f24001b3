"""What is known to go wrong in SGLang's frontend goes right here."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import ramify as sgl
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import BackendError
from ramify.runtime.request import SamplingParams

WAYS = pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])


def echo(text: str, params: SamplingParams) -> Any:
    """Says the last word before it; fails after "burn"."""
    word = text.split()[-1].split("\n")[-1]
    return BackendError("the server is on fire") if word == "burn" else word


@WAYS
def test_a_failed_generation_raises_at_the_read_inside_the_program(eager: bool) -> None:
    @sgl.function
    def program(s):  # type: ignore[no-untyped-def]
        forks = s.fork(2)
        forks[0] += "fine" + sgl.gen("x")
        forks[1] += "burn" + sgl.gen("x")
        try:
            return [fork["x"] for fork in forks]
        except BackendError as error:
            return f"caught {error.message}"

    state = program.run(backend=ScriptedBackend(echo), eager=eager)
    assert state.ret_value == "caught the server is on fire" and state.error() is None


@WAYS
def test_a_failed_branch_is_not_lost_in_a_join(eager: bool) -> None:
    @sgl.function
    def program(s):  # type: ignore[no-untyped-def]
        forks = s.fork(2)
        forks += ["fine" + sgl.gen("x"), "burn" + sgl.gen("x")]
        forks.join()
        s += "after"

    state = program.run(backend=ScriptedBackend(echo), eager=eager)
    assert isinstance(state.error(), BackendError)
    with pytest.raises(BackendError, match="on fire"):
        state["x"]


@WAYS
@pytest.mark.parametrize("question, answer", [("say yes", "agreed"), ("say no", "refused")])
def test_branching_on_what_was_generated(question: str, answer: str, eager: bool) -> None:
    @sgl.function
    def program(s, question):  # type: ignore[no-untyped-def]
        s += question + sgl.gen("reply")
        if s["reply"] == "yes":
            return "agreed"
        return "refused" if "no" in s["reply"] else "unclear"

    program.cache(ScriptedBackend(echo))
    assert program.run(question, backend=ScriptedBackend(echo), eager=eager).ret_value == answer


@WAYS
def test_arguments_and_variables_in_f_strings(eager: bool) -> None:
    @sgl.function
    def program(s, name, count):  # type: ignore[no-untyped-def]
        s += f"{name!r} has {count:03d} " + sgl.gen("word")
        s += f" or {s['word']}{len(s['word'])} " + sgl.gen("again")

    backend = ScriptedBackend(echo)
    program.cache(backend)
    program.trace()
    state = program.run("Ann", 7, backend=backend, eager=eager)
    assert state.text() == "'Ann' has 007 007 or 0073 0073"
    assert program.run_batch([("Ann", 7), ("Bob", 8)], backend=backend)[1]["again"] == "0083"


@WAYS
def test_a_name_may_be_joined_again(eager: bool) -> None:
    @sgl.function
    def program(s):  # type: ignore[no-untyped-def]
        seen = []
        for word in ("one", "two"):
            forks = s.fork(2)
            forks += lambda index, word=word: f"{index} {word}" + sgl.gen("x")
            forks.join()
            seen.append(s["x"])
        return seen

    assert program.run(backend=ScriptedBackend(echo), eager=eager).ret_value == [["one", "one"], ["two", "two"]]


@WAYS
def test_methods_and_any_name_for_the_state(eager: bool) -> None:
    class Asker:
        def __init__(self, prefix: str) -> None:
            self.prefix = prefix

        @sgl.function
        def ask(self, state, question):  # type: ignore[no-untyped-def]
            state += self.prefix + question + sgl.gen("x")
            return self.helper(state)

        def helper(self, prompt):  # type: ignore[no-untyped-def]
            prompt += " more" + sgl.gen("y")
            return prompt["y"]

    state = Asker("Q: ").ask.run("why", backend=ScriptedBackend(echo), eager=eager)
    assert state.text() == "Q: whywhy moremore" and state.ret_value == "more"


@WAYS
def test_threads_run_programs_at_once(eager: bool) -> None:
    @sgl.function
    def program(s, word):  # type: ignore[no-untyped-def]
        for _ in range(5):
            s += f" {word}" + sgl.gen("x")
        return s["x"]

    backend, found = ScriptedBackend(echo, delay=0.001), {}

    def work(word: str) -> None:
        found[word] = [program.run(word, backend=backend, eager=eager).ret_value for _ in range(5)]

    threads = [threading.Thread(target=work, args=(f"word{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {f"word{number}": [f"word{number}"] * 5 for number in range(4)}


@WAYS
def test_every_turn_is_sent_with_the_system_prompt(eager: bool) -> None:
    @sgl.function
    def program(s):  # type: ignore[no-untyped-def]
        s += sgl.system("Be kind.")
        for turn in range(3):
            s += sgl.user(f"Turn {turn}.") + sgl.assistant(sgl.gen(f"reply_{turn}"))

    backend = ScriptedBackend(echo)
    state = program.run(backend=backend, eager=eager)
    assert len(backend.requests) == 3
    assert all(text.startswith("<system>Be kind.</system>") for text in backend.requests)
    assert [message["role"] for message in state.messages()] == ["system", *["user", "assistant"] * 3]


@WAYS
def test_a_run_inside_a_run_does_not_lock_up(eager: bool) -> None:
    @sgl.function
    def inner(s, word):  # type: ignore[no-untyped-def]
        s += word + sgl.gen("x")

    @sgl.function
    def outer(s):  # type: ignore[no-untyped-def]
        states = inner.run_batch([{"word": f"w{number}"} for number in range(40)])
        streamed = "".join(inner.run("last", stream=True).text_iter("x"))
        s += " ".join(state["x"] for state in states) + " " + streamed

    sgl.set_default_backend(ScriptedBackend(echo, delay=0.001))
    try:
        assert outer.run(eager=eager).text().endswith("w38 w39 last")
    finally:
        sgl.set_default_backend(None)
