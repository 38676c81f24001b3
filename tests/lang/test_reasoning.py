"""separate_reasoning: thoughts and answers of reasoning models."""

from __future__ import annotations

from typing import Any

import pytest
import ramify as sgl
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import BackendError, UsageError
from ramify.runtime.reasoning import MODEL_TYPES, marks_of
from ramify.runtime.request import SamplingParams

WAYS = pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])


@pytest.mark.parametrize(
    "model_type, text, thoughts, answer",
    [
        (None, "<think>a b</think>\nc", "a b", "\nc"),
        (None, "just c", "", "just c"),
        ("qwen3", "<think>cut off", "cut off", ""),
        ("Qwen3", "<think></think>c</think>", "", "c</think>"),
        ("deepseek-r1", "a b</think>c", "a b", "c"),
        ("deepseek-r1", "<think>a b</think>c", "a b", "c"),
        ("deepseek-r1", "cut off", "cut off", ""),
        ("kimi", "◁think▷a◁/think▷c", "a", "c"),
    ],
)
def test_splitting(model_type: str | None, text: str, thoughts: str, answer: str) -> None:
    assert marks_of(model_type).split(text) == (thoughts, answer)


def thinking(text: str, params: SamplingParams) -> str:
    return f"<think>I saw {len(text)} characters</think>So {text.count('user') // 2} it is"


@sgl.function
def two_turns(s, question):  # type: ignore[no-untyped-def]
    s += sgl.user(question)
    s += sgl.assistant(sgl.separate_reasoning(sgl.gen("first"), model_type="qwen3"))
    s += sgl.user("Sure?")
    s += sgl.assistant(sgl.separate_reasoning("Well: " + sgl.gen("second") + "; " + sgl.gen("third")))
    return s["first"], s["first_reasoning_content"]


@WAYS
def test_only_answers_stay_in_the_prompt(eager: bool) -> None:
    backend = ScriptedBackend(thinking)
    state = two_turns.run("What?", backend=backend, eager=eager)
    assert state["first"] == "So 1 it is" and state["first_reasoning_content"].startswith("I saw ")
    assert state.ret_value == (state["first"], state["first_reasoning_content"])
    assert [message["content"] for message in state.messages()] == [
        "What?",
        "So 1 it is",
        "Sure?",
        "Well: So 2 it is; So 2 it is",
    ]
    assert "think" not in state.text() and "think" not in backend.requests[1]
    assert "</think>So 2 it is; " in backend.requests[2]  # what thinks on sees what it has thought
    assert state.get_meta_info("first")["completion_tokens"] > 4


@WAYS
def test_streamed_runs_are_the_same(eager: bool) -> None:
    state = two_turns.run("What?", backend=ScriptedBackend(thinking), eager=eager, stream=True)
    assert "".join(state.text_iter()) == state.text()
    assert list(state.text_iter("first")) == ["So 1 it is"]


def test_eager_and_compiled_agree_on_the_embedded_model() -> None:
    found = [two_turns.run("What is 3 + 4?", temperature=0, eager=eager) for eager in (True, False)]
    assert found[0].run.vars == found[1].run.vars and found[0].text() == found[1].text()


@WAYS
def test_a_failure_is_told_where_the_answer_is_read(eager: bool) -> None:
    def fails(text: str, params: SamplingParams) -> Any:
        return BackendError("no")

    @sgl.function
    def program(s):  # type: ignore[no-untyped-def]
        s += sgl.separate_reasoning(sgl.gen("x"))
        try:
            return s["x_reasoning_content"]
        except BackendError:
            return "caught"

    state = program.run(backend=ScriptedBackend(fails), eager=eager)
    assert state.ret_value == "caught" and state.error() is None


@WAYS
def test_wrong_calls(eager: bool) -> None:
    with pytest.raises(UsageError, match="unknown model_type 'gpt-2'") as caught:
        sgl.separate_reasoning(sgl.gen("x"), model_type="gpt-2")
    assert "qwen3-thinking" in str(caught.value) and "qwen3-thinking" in MODEL_TYPES
    with pytest.raises(TypeError, match="takes text and expressions"):
        sgl.separate_reasoning(5)  # type: ignore[arg-type]

    @sgl.function
    def program(s):  # type: ignore[no-untyped-def]
        s += sgl.separate_reasoning(sgl.gen("x", dtype=int))

    with pytest.raises(UsageError, match="has a type"):
        program.run(backend=ScriptedBackend(thinking), eager=eager)
