"""The `ramify` command, mostly in this process; whatever kills or interrupts it, in one of its own."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ramify.backends import close_backends, open_backend
from ramify.backends.local import LocalBackend
from ramify.backends.scripted import ScriptedBackend
from ramify.compiler.pipeline import PIPELINE
from ramify.ir.codec import decode
from ramify.ir.parser import parse
from ramify.lang.cli import main
from ramify.lang.live import LiveView
from ramify.lang.program import load
from ramify.lang.rendering import PlainView
from ramify.runtime.generation import StreamEvent

PROGRAMS = """
import time
import ramify as rf

@rf.program
def ask(s, question: str, times: int = 1):
    for _ in range(times):
        s += rf.user(question) + rf.assistant(rf.gen("answer", max_tokens=4))
    if question == "raise":
        raise ValueError("asked to")
    return {"answer": s["answer"], "times": times}

@rf.program
def spread(s, count: int):
    s += "Count:\\n"
    for number, branch in enumerate(s.fork(count)):
        branch += rf.user(f"number {number}") + rf.assistant(rf.gen("x"))
        s += branch["x"] + "\\n"

@rf.program
def slow(s, question: str):
    print("working on", question)
    time.sleep(0.01)
    s += question + rf.gen("answer")
    return s["answer"]
"""


class Outcome:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Ramify = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAMIFY_DEBUG", raising=False)
    monkeypatch.setenv("RAMIFY_MODEL", "no-model-was-named")
    (tmp_path / "programs.py").write_text(PROGRAMS)
    rows = [{"question": f"question {number}"} for number in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def ramify(capsys: pytest.CaptureFixture[str]) -> Ramify:
    def run(*words: str) -> Outcome:
        code = main(words)
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run


def scripted(*words: str, model: str = "scripted") -> list[str]:
    return ["run", *words, "--model", model]


def masked(text: str) -> str:
    """The text without its times."""
    return re.sub(r"[\d.]+ m?s$", "TIME", text, flags=re.MULTILINE)


def test_a_run_shows_every_turn_then_value_and_usage(ramify: Ramify) -> None:
    outcome = ramify(*scripted("programs.py:ask", "--arg", "question=15", "--arg", "times=2"))
    assert (outcome.code, outcome.err) == (0, "")
    assert masked(outcome.out) == (
        "[user] 15\n"
        "[assistant]  amber birch knoll jetty\n"
        "[user] 15\n"
        "[assistant]  delta haven ember ember\n"
        'value: {"answer": " delta haven ember ember", "times": 2}\n'
        "prompt 10 tokens, 0 cached (0%), generated 8 tokens, 2 calls, TIME\n"
    )


def test_branches_have_labels(ramify: Ramify) -> None:
    out = ramify(*scripted("programs.py:spread", "--arg", "count=2")).out
    for label in ("[0 user] number 0\n", "[0 assistant]  ", "[1 user] number 1\n", "[1 assistant]  "):
        assert out.count(label) == 1
    assert out.startswith("Count:\n")


def test_eager_says_the_same(ramify: Ramify) -> None:
    words = scripted("programs.py:spread", "--arg", "count=3", "--json")
    compiled, eager = (json.loads(ramify(*words, *more).out) for more in ([], ["--eager"]))
    assert compiled["text"] == eager["text"]


def test_json_is_one_object(ramify: Ramify) -> None:
    outcome = ramify(*scripted("programs.py:slow", "--arg", "question=15", "--json"))
    assert outcome.err == "working on 15\n"
    run = json.loads(outcome.out)
    assert outcome.out.count("\n") == 1
    assert list(run) == ["value", "vars", "text", "usage", "error"]
    assert run["vars"] == {"answer": run["value"]}
    assert run["text"] == "15" + run["value"]
    assert run["usage"]["calls"] == 1
    assert run["error"] is None


def test_quiet_prints_the_value(ramify: Ramify) -> None:
    assert ramify(*scripted("programs.py:ask", "--arg", "question=15", "--quiet")).out == (
        '{"answer": " amber birch knoll jetty", "times": 1}\n'
    )


def test_sampling_options_are_defaults(ramify: Ramify) -> None:
    words = scripted("programs.py:slow", "--arg", "question=15", "--json")
    run = json.loads(ramify(*words, "--max-tokens", "2").out)
    assert run["usage"]["generated_tokens"] == 2
    seeds = {json.loads(ramify(*words, "--temperature", "1", "--seed", str(n)).out)["value"] for n in range(3)}
    assert len(seeds) == 3


def test_errors_of_user_code_show_the_users_frames(ramify: Ramify, folder: Path) -> None:
    outcome = ramify(*scripted("programs.py:ask", "--arg", "question=raise"))
    assert outcome.code == 1
    assert outcome.out.startswith("[user] raise\n[assistant] ")
    assert outcome.err.startswith(
        'Traceback (most recent call last):\n  File "programs.py", line 10, in ask\n    raise ValueError("asked to")\n'
        "ValueError: asked to\n"
    )
    assert "/lang/cli.py" not in outcome.err
    assert "/lang/cli.py" in ramify(*scripted("programs.py:ask", "--arg", "question=raise", "--debug")).err
    run = json.loads(ramify(*scripted("programs.py:ask", "--arg", "question=raise", "--json")).out)
    assert run["value"] is None
    assert (run["error"]["type"], run["error"]["message"]) == ("ValueError", "asked to")
    assert run["vars"]["answer"]


COMMANDS = "run, check, compile, explain, trace, tree, recording, serve, repl"
WRONG = {
    "rnu": "there is no command 'rnu'\n  help: did you mean 'run'?",
    "bake": f"there is no command 'bake'\n  help: the commands are {COMMANDS}",
    "": f"ramify needs a command\n  help: the commands are {COMMANDS}",
    "run": "the following arguments are required: FILE[:PROGRAM]\n  help: see ramify run --help",
    "run programs.py --modle x": "ramify run has no option --modle\n  help: did you mean --model?",
    "run programs.py x": "ramify run does not know what to do with 'x'\n  help: see ramify run --help",
    "run programs.py": "programs.py holds 3 programs: ask, spread, slow\n  help: say which one: programs.py:ask",
    "run program.py": "there is no file 'program.py'\n  help: did you mean programs.py?",
    "run programs.py:ask --arg times=3": (
        "ask: missing argument 'question'\n  help: its arguments are ask(question: str, times: int = 1)"
    ),
    "run programs.py:ask --arg q=3": "ask has no argument 'q'\n  help: its arguments are question, times",
    "run programs.py:ask --resume": "--out, --resume and --overwrite belong to a run over --data",
    "run programs.py:ask --data rows.jsonl --resume": (
        "--resume and --overwrite need --out, the file that the rows are in"
    ),
    "run programs.py:ask --arg question=1 --temperature -1": "temperature must be >= 0 and finite, got -1.0",
    "run programs.py:ask --arg question=1 --model scripted:x": (
        "the model 'scripted:x' has no delay in seconds after the colon"
    ),
    "compile programs.py:ask --after promot": "there is no pass 'promot'\n  help: did you mean 'promote'?",
    "compile programs.py:ask --disable promot": "there is no pass 'promot'\n  help: did you mean 'promote'?",
    "run programs.py:ask --arg question=1 --disable cs": "there is no pass 'cs'\n  help: did you mean 'cse'?",
    "explain programs.py:ask --arg question=1 --disable cs": "there is no pass 'cs'\n  help: did you mean 'cse'?",
    "compile programs.py:ask --emit xml": (
        "argument --emit: invalid choice: 'xml' (choose from 'ir', 'bin')\n  help: see ramify compile --help"
    ),
    "repl programs.py:ask": "ramify repl takes a file, not one of its programs: programs.py",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_command_lines(ramify: Ramify, line: str) -> None:
    outcome = ramify(*line.split())
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"error: {WRONG[line]}\n")


def test_errors_of_ramify_show_the_line(ramify: Ramify, folder: Path) -> None:
    (folder / "wrong.py").write_text("import ramify as rf\n@rf.program\ndef wrong(s):\n    yield 'ünï', s\n")
    expected = (
        "wrong.py:4\n        yield 'ünï', s\n        ^^^^^^^^^^^^^^\nerror: `yield` cannot stand in a program\n"
        "help: collect the values in a list and return it; stream with `options(stream=...)`\n"
    )
    outcome = ramify(*scripted("wrong.py"))
    assert (outcome.code, outcome.err) == (2, expected)


def test_a_fault_of_ramifys_own_shows_where_it_is(ramify: Ramify, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramify.lang.run_command.value_text", None)
    outcome = ramify(*scripted("programs.py:ask", "--arg", "question=1", "--quiet"))
    assert outcome.code == 1
    assert "/lang/run_command.py" in outcome.err


def test_check_says_what_became_of_each_program(ramify: Ramify, folder: Path) -> None:
    assert ramify("check", "programs.py").out == "programs.py:ask: ok\nprograms.py:spread: ok\nprograms.py:slow: ok\n"
    (folder / "mixed.py").write_text(
        "import ramify as rf\n"
        "@rf.program\ndef good(s):\n    s += 'x'\n"
        "@rf.program\ndef partly(s):\n    s += 'x'\n    exec('y = 1')\n"
        "@rf.program\ndef bad(s):\n    yield s\n"
    )
    outcome = ramify("check", "mixed.py")
    assert outcome.code == 2
    assert outcome.out == (
        "mixed.py:good: ok\n"
        "mixed.py:partly: ok, but for what runs eagerly\n"
        "  mixed.py:8\n"
        "          exec('y = 1')\n"
        "          ^^^^\n"
        "  runs eagerly: `exec` needs the function's own frame\n"
        "mixed.py:bad: error\n"
        "  mixed.py:11\n"
        "          yield s\n"
        "          ^^^^^^^\n"
        "  error: `yield` cannot stand in a program\n"
        "  help: collect the values in a list and return it; stream with `options(stream=...)`\n"
    )
    assert ramify("check", "mixed.py:good").code == 0


def test_compile_writes_both_forms(ramify: Ramify, folder: Path) -> None:
    shown = ramify("compile", "programs.py:ask").out
    assert parse(shown).entry == "ask"
    before = ramify("compile", "programs.py:ask", "--after", "frontend").out
    assert before.count("cell.load") > shown.count("cell.load")
    assert ramify("compile", "programs.py:ask", "--disable", "promote").out.count("cell.load") > shown.count(
        "cell.load"
    )
    assert ramify("compile", "programs.py:ask", "--emit", "bin", "-o", "ask.irb").out == ""
    assert decode((folder / "ask.irb").read_bytes()).entry == "ask"
    loaded = load(folder / "ask.irb", trust=True).run(question="15", backend=ScriptedBackend())
    assert loaded.value == {"answer": " amber birch knoll jetty", "times": 1}
    ramify("compile", "programs.py:ask", "-o", "ask.ir")
    assert parse((folder / "ask.ir").read_text()).functions["ask"].span.line == 6
    timing = ramify("compile", "programs.py:ask", "--timing").err.splitlines()
    assert [line.split()[0] for line in timing] == ["pass", *(each.name for each in PIPELINE)]


def test_commands_that_need_no_model_import_none() -> None:
    code = (
        "import sys\nfrom ramify.lang.cli import main\n"
        "assert main(['check', 'programs.py']) == 0 and main(['compile', 'programs.py:ask']) == 0\n"
        "heavy = [name for name in ('torch', 'tokenizers', 'rich', 'prompt_toolkit') if name in sys.modules]\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["run programs.py:ask --arg question=1 --model scripted", "check programs.py"])
def test_a_full_disk_behind_stdout_is_one_line(words: str, unbuffered: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "ramify.lang.cli", *words.split()]
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert (done.returncode, done.stderr) == (1, "error: stdout cannot be written: No space left on device\n")


@pytest.mark.parametrize("form", ["ask.ir", "ask.irb"])
def test_saved_programs_run_if_they_are_trusted(ramify: Ramify, form: str) -> None:
    ramify("compile", "programs.py:ask", "--emit", "bin" if form.endswith("b") else "ir", "-o", form)
    words = scripted(form, "--arg", "question=15", "--quiet")
    refused = ramify(*words)
    assert refused.code == 2 and refused.err.startswith(f"error: {form} holds host code")
    assert refused.err.endswith("  help: if you trust where it comes from, add --trust\n")
    trusted = ramify(*words, "--trust")
    assert (trusted.code, trusted.out) == (0, '{"answer": " amber birch knoll jetty", "times": 1}\n')
    assert ramify(*words, "--trust", "--eager").out == trusted.out
    assert ramify("check", form).err == (
        f"error: {form} is a saved program, not its source\n  help: to run it: ramify run {form} --trust\n"
    )


@pytest.fixture
def fresh() -> Iterator[Callable[[], None]]:
    """Closes the models of this process, as its end would."""
    yield close_backends
    close_backends()


def test_a_cache_outlives_the_process(ramify: Ramify, folder: Path, fresh: Callable[[], None]) -> None:
    fresh()
    words = ("run", "programs.py:ask", "--arg", "question=How many?", "--model", "tiny", "--json", "--cache", "kv")
    first, size = json.loads(ramify(*words).out), (folder / "kv").stat().st_size
    fresh()
    second = json.loads(ramify(*words).out)
    assert first["usage"]["cached_tokens"] == 0 < second["usage"]["cached_tokens"]
    assert first["text"] == second["text"] and size == (folder / "kv").stat().st_size
    fresh()
    assert ramify(*(word.replace("many?", "much is it, all in all?") for word in words)).code == 0
    assert (folder / "kv").stat().st_size > size
    fresh()
    assert ramify(*words, "--cache-tokens", "8", "--arg", "times=2").code == 0
    assert (folder / "kv").stat().st_size < size


def test_a_model_keeps_as_much_kv_as_the_options_say(ramify: Ramify, folder: Path, fresh: Callable[[], None]) -> None:
    words = ("run", "programs.py:ask", "--arg", "question=How many?", "--json", "--model")
    fresh()
    plain = json.loads(ramify(*words, "tiny").out)
    assert "is open already" in ramify(*words, "tiny", "--host-kv-tokens", "500").err
    fresh()
    given = json.loads(ramify(*words, "tiny", "--kv-tokens", "300", "--host-kv-tokens", "500").out)
    assert given["text"] == plain["text"]
    backend = open_backend("tiny")
    assert isinstance(backend, LocalBackend) and backend.stats().capacity == 300
    host = backend.engine._scheduler.host
    assert host is not None and host.tree.pool.capacity == 500
    fresh()
    assert "needs KV for" in ramify(*words, "tiny", "--kv-tokens", "2").out
    fresh()
    assert "at least 1, got 0" in ramify(*words, "tiny", "--kv-tokens", "0").err
    assert "at least 0, got -1" in ramify(*words, "tiny", "--host-kv-tokens", "-1").err
    for model in ("scripted", "openai:some"):
        assert f"the model {model} keeps no KV here" in ramify(*words, model, "--kv-tokens", "9").err


def test_a_cache_that_cannot_be_used(ramify: Ramify, folder: Path) -> None:
    words = ("run", "programs.py:ask", "--arg", "question=1", "--model")
    (folder / "kv").write_bytes(b"something else")
    refused = ramify(*words, "tiny", "--cache", "kv")
    assert refused.code == 2 and "kv is no saved cache" in refused.err and not refused.out
    assert (folder / "kv").read_bytes() == b"something else"
    assert "there is no folder nowhere" in ramify(*words, "tiny", "--cache", "nowhere/kv").err
    assert "the model scripted has no cache here" in ramify(*words, "scripted", "--cache", "kv").err
    assert "--cache-tokens needs --cache" in ramify(*words, "tiny", "--cache-tokens", "5").err
    assert "must be at least 1, got 0" in ramify(*words, "tiny", "--cache", "kv2", "--cache-tokens", "0").err


def test_an_output_that_is_a_folder(ramify: Ramify, folder: Path) -> None:
    outcome = ramify(*scripted("programs.py:slow", "--data", "rows.jsonl", "--out", str(folder)))
    assert (outcome.code, outcome.err) == (2, f"error: the output is to be a file, and {folder} is a folder\n")


def test_resuming_another_program_says_what_has_changed(ramify: Ramify, folder: Path) -> None:
    words = scripted("programs.py:slow", "--data", "rows.jsonl", "--out", "out.jsonl", "--quiet")
    assert ramify(*words).code == 0
    source = (folder / "programs.py").read_text()
    (folder / "programs.py").write_text(source.replace('"answer": s["answer"]', '"answer": "x"'))
    assert ramify(*words, "--resume").code == 0  # that is another program of the file
    (folder / "programs.py").write_text(source.replace('    s += question + rf.gen("answer")', '    s += "x"'))
    assert ramify(*words, "--resume").err == (
        "error: out.jsonl is the output of an earlier version of slow: the source of slow has changed since\n"
        '    -    s += question + rf.gen("answer")\n    +    s += "x"\n'
        "  help: resume with the same, or start again with overwrite (--overwrite), which replaces it\n"
    )


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_data_without_out_goes_to_stdout_in_order(ramify: Ramify) -> None:
    outcome = ramify(*scripted("programs.py:slow", "--data", "rows.jsonl"))
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row["row"] for row in rows] == list(range(8))
    assert list(rows[0]) == ["row", "value", "vars", "text", "usage", "error"]
    assert masked(outcome.err).splitlines()[-2:] == [
        "8 rows, 0 failed",
        f"prompt 16 tokens, 0 cached (0%), generated {sum(row['usage']['generated_tokens'] for row in rows)} tokens, "
        "8 calls, TIME",
    ]


def test_rows_that_fail_do_not_stop_the_others(ramify: Ramify, folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"question": "a"}\n{"question": "raise"}\n{"question": "b", "times": 3}\n')
    words = scripted("programs.py:ask", "--data", "rows.jsonl", "--out", "out.jsonl", "--arg", "times=2")
    outcome = ramify(*words)
    assert outcome.code == 1
    assert outcome.err.splitlines()[:2] == [
        "out.jsonl: 3 rows, 1 failed",
        "the first to fail in this run was row 1: ValueError: asked to",
    ]
    rows = records(folder / "out.jsonl")
    assert [row["value"] and row["value"]["times"] for row in rows] == [2, None, 3]
    assert rows[1]["error"]["traceback"].startswith('Traceback (most recent call last):\n  File "programs.py", line 10')
    again = ramify(*words)
    refused = "error: out.jsonl exists already\n  help: resume (--resume) goes on where that run stopped"
    assert again.err.startswith(refused)
    assert ramify(*words, "--resume").code == 1
    assert ramify(*words, "--resume", "--seed", "1").err.startswith(
        "error: out.jsonl is the output of other options: seed"
    )
    assert ramify(*words, "--overwrite").code == 1


def test_wrong_rows_are_refused_before_anything_runs(ramify: Ramify, folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"question": "a"}\n{"qestion": "b"}\n')
    outcome = ramify(*scripted("programs.py:slow", "--data", "rows.jsonl", "--out", "out.jsonl"))
    assert outcome.code == 2
    assert outcome.err.startswith("error: slow: missing argument 'question'; unknown argument 'qestion' (row 1)\n")
    assert not list(folder.glob("out.jsonl*"))


def test_a_run_that_could_not_begin_leaves_everything_as_it_was(ramify: Ramify, folder: Path) -> None:
    words = ["run", "programs.py:slow", "--data", "rows.jsonl", "--out", "out.jsonl", "--quiet", "--model"]
    refused = "error: there is no backend 'no-such-model'"
    assert ramify(*words, "no-such-model").err.startswith(refused)
    assert not list(folder.glob("out.jsonl*"))
    assert ramify(*words, "scripted").code == 0
    assert ramify(*words, "no-such-model", "--overwrite").err.startswith(refused)
    assert len(records(folder / "out.jsonl")) == 8


def start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ramify.lang.cli", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(path: Path, number: int) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or path.read_bytes().count(b"\n") < number:
        assert time.monotonic() < deadline, "no rows were written"
        time.sleep(0.01)


LONG = ("programs.py:slow", "--data", "many.jsonl", "--out", "out.jsonl")


@pytest.fixture
def many(folder: Path) -> int:
    (folder / "many.jsonl").write_text("".join(json.dumps({"question": f"number {n}"}) + "\n" for n in range(400)))
    return 400


def test_a_killed_run_loses_nothing_and_repeats_nothing(ramify: Ramify, folder: Path, many: int) -> None:
    part = folder / "out.jsonl.part"
    with start(*scripted(*LONG, model="scripted:0.02")) as process:
        wait_for_rows(part, 20)
        process.kill()
        process.communicate()
    finished = [line for line in part.read_bytes().split(b"\n")[:-1] if line]
    assert 20 <= len(finished) < many
    part.write_bytes(part.read_bytes() + b'{"row": 399, "value": "hal')
    outcome = ramify(*scripted(*LONG, "--resume", model="scripted:0.02"))
    assert outcome.code == 0
    assert f"out.jsonl: {len(finished)} of 400 rows were finished\n" in outcome.err
    lines = (folder / "out.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["row"] for line in lines] == list(range(many))
    assert set(finished) <= set(lines)
    assert not part.exists()


def test_ctrl_c_says_how_to_go_on(folder: Path, many: int) -> None:
    with start(*scripted(*LONG, model="scripted:0.02")) as process:
        wait_for_rows(folder / "out.jsonl.part", 20)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    finished = (folder / "out.jsonl.part").read_bytes().count(b"\n")
    assert err == (
        f"interrupted: {finished} of 400 rows are finished, in out.jsonl.part\n"
        "  help: go on with: ramify run programs.py:slow --data many.jsonl --out out.jsonl --model scripted:0.02"
        " --resume\n"
    )


def event(text: str, kind: Any = "text", branch: tuple[int, ...] = (), name: str | None = None) -> StreamEvent:
    return StreamEvent(branch, name, text, kind)


def test_one_branch_speaks_at_a_time() -> None:
    file, now = io.StringIO(), [0.0]
    view = PlainView(file, lambda: now[0])
    for part in (event("user", "role", (0,), "begin"), event("ask", branch=(0,)), event("b", branch=(1,)),
                 event(" more", branch=(0,)), event("root"), event("user", "role", (0,), "end")):  # fmt: skip
        view(part)
    assert file.getvalue() == "[0 user] ask more\n[1] b"
    now[0] = 5.0
    view(event(" late"))
    view(event("!", branch=(1,)))
    view.close()
    assert file.getvalue() == "[0 user] ask more\n[1] b\nroot late\n[1] !\n"


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, events: list[StreamEvent]) -> str:
    """What the view writes on a terminal, with its steering sequences."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    file = Terminal()
    view = LiveView(file)
    for each in events:
        view(each)
    view.close()
    return file.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_turns_stay_and_cannot_steer_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_a_terminal(
        monkeypatch,
        [
            event("the beginning"),
            event("user", "role", (0,), "begin"),
            event("ask", branch=(0,)),
            event("\x1b[2J said", "gen", (1,), "x"),
            event("user", "role", (0,), "end"),
            event(" and the end"),
        ],
    )
    assert "\x1b[2J" not in shown
    kept = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)
    places = [kept.rindex(text) for text in ("the beginning", "0 user: ask", " and the end", "1: \\x1b[2J said")]
    assert places == sorted(places)
