"""What host code gives that may differ the next time is recorded, and given again."""

from __future__ import annotations

import random
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends.replay.recording import Recording, summary
from ramify.backends.scripted import ScriptedBackend

from .test_replay import NOTHING


def fetch(name: str) -> str:
    return f"{Path(name).read_text()} at {time.time()}"


@rf.program
def draw(s, items, name):
    shuffled = list(items)
    random.shuffle(shuffled)
    first = random.choice(items)
    numbers = [random.random() for _ in range(3)]
    more = numbers
    at = time.time()
    found = fetch(name)
    s += f"{first} {numbers} {at} {found} {shuffled}" + rf.gen("x", max_tokens=2)
    return first, numbers, more is numbers, at, found, shuffled


@rf.program
def guarded(s, name):
    try:
        found = fetch(name)
    except OSError as error:
        found = str(error)
    s += found + rf.gen("x", max_tokens=2)
    return found


@pytest.fixture(autouse=True)
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("page", "site"):
        Path(name).write_text(name)


def test_what_was_drawn_and_read_is_given_again(tmp_path: Path) -> None:
    file, items = tmp_path / "runs.rec", [f"item {number}" for number in range(30)]
    recorded = draw.run(items, "page", backend=ScriptedBackend(), record=file)
    played = draw.run(items, "page", backend=NOTHING, replay=file)
    assert played.value == recorded.value and played.text == recorded.text and recorded.value[2]
    (run,) = Recording(file).runs.values()
    assert run.hosts and all(not host.lost for host in run.hosts)


def test_what_failed_then_or_fails_now_does_as_it_did(tmp_path: Path) -> None:
    good, bad, page = tmp_path / "good.rec", tmp_path / "bad.rec", Path("page")
    recorded = guarded.run("page", backend=ScriptedBackend(), record=good)
    page.unlink()
    failed = guarded.run("page", backend=ScriptedBackend(), record=bad)
    assert failed.value == "[Errno 2] No such file or directory: 'page'"
    assert guarded.run("page", backend=NOTHING, replay=good).value == recorded.value
    page.write_text("page")
    assert guarded.run("page", backend=NOTHING, replay=bad).value == failed.value


def test_a_partial_replay_takes_nothing_over_that_follows_from_something_new(tmp_path: Path) -> None:
    file = tmp_path / "runs.rec"
    recorded = draw.run(["a", "b"], "page", backend=ScriptedBackend(), record=file)
    again = draw.run(["a", "b"], "site", backend=ScriptedBackend(), replay=file, partial=True)
    assert again.value[0] == recorded.value[0] and again.value[4].startswith("site at")


def test_what_no_file_can_hold_runs_again_and_is_told(tmp_path: Path) -> None:
    @rf.program
    def opens(s, name):
        held = open(name)  # noqa: SIM115
        text = held.read()
        held.close()
        s += text + rf.gen("x", max_tokens=2)
        return text

    file, data = tmp_path / "runs.rec", tmp_path / "data.txt"
    data.write_text("some text")
    opens.run(str(data), backend=ScriptedBackend(), record=file)
    assert opens.run(str(data), backend=NOTHING, replay=file).value == "some text"
    told = "\n".join(summary(Recording(file)))
    assert "not recorded, so it runs again: test_hosting.py:" in told and "TextIOWrapper" in told


def test_changed_code_is_not_hidden_by_what_was_recorded(tmp_path: Path) -> None:
    file = tmp_path / "runs.rec"
    source = (
        "import ramify as rf\nimport random\nimport helpers\nWORD = 'one'\n"
        "def make(x):\n    random.random()\n    return f'{x} {WORD}'\n"
        "@rf.program\ndef p(s, x):\n    s += make(x) + helpers.more(x) + rf.gen('y', max_tokens=2)\n"
    )
    helper = "import random\ndef more(x):\n    random.random()\n    return 'more'\n"

    def program(text: str, help: str) -> Any:
        import linecache

        spaces: list[dict[str, Any]] = []
        for name, code in (("helpers", help), ("main", text)):
            path = tmp_path / f"{name}.py"
            path.write_text(code)
            module = types.ModuleType(name)
            module.__file__ = str(path)
            sys.modules[name] = module
            linecache.checkcache(str(path))
            exec(compile(code, str(path), "exec", dont_inherit=True), module.__dict__)
            spaces.append(module.__dict__)
        return spaces[1]["p"]

    try:
        recorded = program(source, helper).run("x", backend=ScriptedBackend(), record=file)
        assert program(source, helper).run("x", backend=NOTHING, replay=file).text == recorded.text
        for text, help in (
            (source.replace("'one'", "'two'"), helper),
            (source.replace("{x} {", "{x}, {"), helper),
            (source, helper.replace("return 'more'", "return 'less'")),
        ):
            with pytest.raises(rf.ReplayMismatch, match="its prompt has"):
                program(text, help).run("x", backend=NOTHING, replay=file)
    finally:
        sys.modules.pop("helpers", None)
        sys.modules.pop("main", None)
