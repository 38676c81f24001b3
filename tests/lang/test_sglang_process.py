"""SGLang's names that concern the whole process, `cache`, and the names that are gone."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import ramify as sgl
from ramify.backends import open_backend
from ramify.backends.scripted import ScriptedBackend
from ramify.ir.errors import Unsupported, UsageError

SHOTS = "Q: What is 1 + 1?\nA: 2\n\nQ: What is 2 + 2?\nA: 4\n\n"


@sgl.function
def few_shot(s, shots, question):  # type: ignore[no-untyped-def]
    print("not run to find the prefix")
    s += "Answer the questions.\n"
    s += f"{shots}"
    s += f"Q: {question}\nA:"
    s += sgl.gen("answer", max_tokens=4, stop="\n")


@sgl.function
def global_shots(s, question):  # type: ignore[no-untyped-def]
    s += sgl.system("Answer briefly.") + SHOTS
    with s.user():
        s += "Now: " + question
    s += sgl.assistant(sgl.gen("answer"))


def test_cache_sends_what_every_run_begins_with(capsys: pytest.CaptureFixture[str]) -> None:
    backend = ScriptedBackend()
    few_shot.cache(backend)
    few_shot.bind(shots=SHOTS).cache(backend)
    few_shot.bind(shots=SHOTS, question="Why?").cache(backend)
    global_shots.cache(backend)
    assert capsys.readouterr().out == ""
    start = "Answer the questions.\n" + SHOTS
    assert backend.requests == [
        "Answer the questions.\n",
        start,
        start + "Q: Why?\nA:",
        "<system>Answer briefly.</system>\n" + SHOTS + "<user>Now: "[:6],
    ]


def test_cache_sees_the_globals_of_a_helper_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shots_elsewhere.py").write_text('SHOTS = "other shots "\n\ndef begin(s):\n    s += SHOTS\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    begin = importlib.import_module("shots_elsewhere").begin

    @sgl.function
    def program(s, text):  # type: ignore[no-untyped-def]
        begin(s)
        s += SHOTS
        s += text + sgl.gen("x")

    backend = ScriptedBackend()
    program.cache(backend)
    assert backend.requests == ["other shots " + SHOTS]


def test_cache_of_a_program_without_a_prefix_asks_for_nothing() -> None:
    @sgl.function
    def program(s, text):  # type: ignore[no-untyped-def]
        s += text

    @sgl.function
    def tries(s, text):  # type: ignore[no-untyped-def]
        try:
            s += "maybe"
        finally:
            s += "surely"

    backend = ScriptedBackend()
    program.cache(backend)
    tries.cache(backend)
    assert backend.requests == []


def test_a_cached_prefix_is_found() -> None:
    sgl.set_default_backend("tiny")
    try:
        sgl.flush_cache()
        few_shot.bind(shots=SHOTS).cache()
        cached = sgl.get_server_info()["cached"]
        assert cached > 20
        state = few_shot.bind(shots=SHOTS).run(question="What is 3 + 3?", temperature=0)
        assert state.get_meta_info("answer")["cached_tokens"] >= cached - 2
        sgl.flush_cache()
        assert sgl.get_server_info()["cached"] == 0
    finally:
        sgl.set_default_backend(None)


def test_what_a_backend_cannot_tell_is_refused() -> None:
    backend = ScriptedBackend()
    with pytest.raises(Unsupported, match="'scripted' has no cache"):
        sgl.flush_cache(backend)
    with pytest.raises(Unsupported, match="'scripted' tells nothing"):
        sgl.get_server_info(backend)


def test_the_global_config(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ScriptedBackend()
    monkeypatch.setattr(sgl.global_config, "verbosity", 2)
    sgl.global_config.default_backend = backend
    try:
        assert sgl.global_config.default_backend is backend
        state = global_shots.run("Why?")
    finally:
        sgl.set_default_backend(None)
    assert capsys.readouterr().out == state.text() + "\n"


@pytest.mark.parametrize("name", ["VertexAI", "LiteLLM", "Crusoe", "ServerArgs"])
def test_names_that_are_gone_say_what_to_use(name: str) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        getattr(sgl, name)("model")
    assert "rf." in str(caught.value)


def test_the_embedded_model_is_opened_once() -> None:
    assert open_backend("tiny") is open_backend("tiny")
