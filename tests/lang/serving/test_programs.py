"""Programs that are sent to the server: what runs there, what is refused, and that it gives what it gives here."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.ir.errors import RecordedError, ServerError, UsageError
from ramify.ir.parser import parse
from ramify.lang.cli import main
from ramify.lang.compiled import Compiled
from ramify.lang.serving.client import run_on
from ramify.lang.serving.programs import signature_of
from ramify.lang.serving.server import Server
from ramify.runtime.generation import StreamEvent

from .serving import engine_waits, open_socket, request_bytes, serving, tiny, wait_for
from .test_faults import answered

KEY = "a long random text"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(program_keys=("another", KEY)) as server:
        yield server


def ask(s: Any, question: Any) -> None:
    s += rf.user(question) + rf.assistant(rf.gen("answer", max_tokens=5))


@rf.program
def plain(s, questions):
    s += rf.system("Be brief.")
    for question in questions:
        ask(s, question)
    return s["answer"]


@rf.program
def with_python(s, questions, times: int = 1):
    s += rf.system("Be brief.")
    forks = s.fork(len(questions))
    for branch, question in zip(forks, questions, strict=False):
        ask(branch, question.strip() * times)
    return [branch["answer"].upper() for branch in forks]


@rf.program
def failing(s):
    s += "The dog" + rf.gen("x", max_tokens=2)
    raise ValueError(f"no good: {len(s['x'])}")


QUESTIONS = ["What is 3 + 4?", "Is 7 odd?"]


def send(server: Server, **body: Any) -> tuple[int, Any]:
    with open_socket(server) as link:
        link.sendall(request_bytes("/v1/programs", body))
        return answered(link)


def module_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_program_without_python_runs_unsigned(server: Server) -> None:
    here = plain.run(QUESTIONS, backend=tiny())
    there = run_on(server.url, plain.compile(), {"questions": QUESTIONS})
    assert (there.value, there.text, there.vars) == (here.value, here.text, here.vars)
    assert there.usage.generated_tokens == here.usage.generated_tokens


def test_one_with_python_has_to_be_signed(server: Server) -> None:
    arguments = {"questions": QUESTIONS, "times": 2}
    there = run_on(server.url, with_python.compile(), arguments, program_key=KEY)
    assert there.value == with_python.run(**arguments, backend=tiny()).value
    with pytest.raises(ServerError, match="holds host code") as caught:
        run_on(server.url, with_python.compile(), arguments)
    assert caught.value.status == 403
    with pytest.raises(ServerError, match="of no key of this server"):
        run_on(server.url, with_python.compile(), arguments, program_key="guessed")


def test_a_signature_is_of_the_program(server: Server) -> None:
    data, other = (program.compile().saved() for program in (with_python, failing))
    status, answer = send(server, module=base64.b64encode(other).decode(), signature=signature_of(data, KEY))
    assert status == 403 and answer["error"]["param"] == "signature"


def test_what_a_run_writes_is_streamed(server: Server) -> None:
    events: list[StreamEvent] = []
    run = run_on(server.url, plain.compile(), {"questions": QUESTIONS}, stream=events.append)
    here: list[StreamEvent] = []
    assert plain.run(QUESTIONS, backend=tiny(), stream=here.append).value == run.value
    assert "".join(event.written for event in events) == "".join(event.written for event in here) == run.text


def test_an_error_of_the_program_is_told(server: Server) -> None:
    run = run_on(server.url, failing.compile(), {}, program_key=KEY)
    assert isinstance(run.error, RecordedError) and run.error.kind == "ValueError"
    assert run.error.message.startswith("no good") and run.vars == failing_vars()


def failing_vars() -> dict[str, Any]:
    (run,) = failing.run_batch([{}], backend=tiny())
    return run.vars


def test_sampling_and_arguments(server: Server) -> None:
    given = {"temperature": 0.9, "seed": 4}
    there = run_on(server.url, plain.compile(), {"questions": QUESTIONS}, sampling=given)
    assert there.value == plain.options(**given).run(QUESTIONS, backend=tiny()).value
    with pytest.raises(ServerError, match="missing argument 'questions'"):
        run_on(server.url, plain.compile(), {})
    with pytest.raises(ServerError, match="temperature"):
        run_on(server.url, plain.compile(), {"questions": []}, sampling={"temperature": -1})
    with pytest.raises(UsageError, match="no address"):
        run_on("nowhere", plain.compile(), {})


# What a stranger might send: each is refused before anything of it runs.
HARMFUL = {
    "a while loop": ("""
module @f
func @f(%s: cell) {
  %yes = py.const {value = True} : obj
  flow.while test { flow.condition %yes } do { flow.yield }
  %p = cell.load %s : prompt
  %n = py.const {value = None} : obj
  flow.return %n
}""", "`while`"),
    "recursion": ("""
module @f
func @f(%s: cell) {
  %n = flow.call %s {callee = "f"} : obj
  flow.return %n
}""", "calls itself"),
    "nested loops": ("""
module @f
func @f(%s: cell, %a: obj) {
  flow.for %a do (%x: obj) {
    flow.for %a do (%y: obj) {
      flow.yield
    }
    flow.yield
  }
  %n = py.const {value = None} : obj
  flow.return %n
}""", "might do"),
    "a fork of many": ("""
module @f
func @f(%s: cell) {
  %n = py.const {value = 1000000000} : obj
  %g = prompt.fork %s, %n : obj
  flow.return %n
}""", "might do"),
    "a method of a value": ("""
module @f
func @f(%s: cell, %a: obj) {
  %n = flow.call %a {callee = "g", method = "__reduce_ex__"} : obj
  flow.return %n
}
func @g(%a: obj) {
  flow.return %a
}""", "the method __reduce_ex__"),
    "a call of a value": ("""
module @f
func @f(%s: cell, %a: obj) {
  %n = flow.invoke %a : obj
  flow.return %n
}""", "a call of a value"),
    "a file": ("""
module @f
func @f(%s: cell) {
  %p = cell.load %s : prompt
  %x = lm.gen %p {name = "x", params = {grammar = "/etc/some.lark"}} : prompt
  %n = py.const {value = None} : obj
  flow.return %n
}""", "read files"),
    "a pattern of Python's": ("""
module @f
func @f(%s: cell) {
  %p = cell.load %s : prompt
  %x = lm.gen %p {name = "x", params = {stop_regex = ["(a+)+$"]}} : prompt
  %n = py.const {value = None} : obj
  flow.return %n
}""", "have stop_regex"),
    "an import": ("""
module @f
import os = "os"
func @f(%s: cell) {
  %n = py.const {value = None} : obj
  flow.return %n
}""", "imports of os"),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMFUL)
def test_what_could_do_harm_is_refused(server: Server, name: str) -> None:
    text, reason = HARMFUL[name]
    assert parse(text).entry == "f"
    status, answer = send(server, module=module_of(text), arguments={"a": [1]} if "%a" in text else {})
    assert status in (400, 403) and reason in answer["error"]["message"], answer


@pytest.mark.parametrize("module", ["%%%", module_of("hello"), module_of("\x93RAM"), module_of("module @f")])
def test_what_is_no_program(server: Server, module: str) -> None:
    status, answer = send(server, module=module)
    assert status == 400 and answer["error"]["param"] == "module"


def test_a_client_that_goes_cancels_its_run() -> None:
    with serving(program_keys=(KEY,)) as server:
        with engine_waits(), open_socket(server) as link:
            data = base64.b64encode(plain.compile().saved()).decode()
            link.sendall(request_bytes("/v1/programs", {"module": data, "arguments": {"questions": QUESTIONS}}))
            wait_for(lambda: tiny().stats().waiting > 0)
        wait_for(lambda: server.service.metrics.num_disconnected == 1)
    tiny().engine.check_idle()


def test_the_command_runs_a_program_there(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = "import ramify as rf\n\n@rf.program\ndef add(s, a, b):\n"
    source += "    s += rf.user(f'What is {a} + {b}?') + rf.assistant(rf.gen('x', max_tokens=4))\n    return s['x']\n"
    file = tmp_path / "adding.py"
    file.write_text(source)
    (tmp_path / "key").write_text(KEY + "\n")
    words = ["run", str(file), "--arg", "a=3", "--arg", "b=4"]
    assert main([*words, "--json"]) == 0
    here = json.loads(capsys.readouterr().out)
    there = [*words, "--on", server.url, "--program-key", f"@{tmp_path / 'key'}"]
    assert main([*there, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == here["text"]
    assert main(there) == 0
    assert capsys.readouterr().out.startswith("[user] What is 3 + 4?\n[assistant] ")
    assert main([*there, "--model", "tiny"]) == 2
    assert "--model is for runs in this process" in capsys.readouterr().err


def test_a_program_that_is_ops_alone_needs_no_trust(tmp_path: Path) -> None:
    plain.compile().save(tmp_path / "plain.ir")
    assert "source" not in (tmp_path / "plain.ir").read_text()
    loaded = rf.load(tmp_path / "plain.ir")
    assert loaded.run(QUESTIONS, backend=tiny()).value == plain.run(QUESTIONS, backend=tiny()).value
    with pytest.raises(TypeError, match="int"):
        loaded.run([3], backend=tiny())
    assert Compiled.load(tmp_path / "plain.ir").ir == plain.compile().ir
