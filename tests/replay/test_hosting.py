"""What host code gives that may differ the next time is recorded, and given again."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
import ramify as rf
from ramify.backends.replay.recording import Recording, summary
from ramify.backends.scripted import ScriptedBackend

from .test_replay import NOTHING

failing = False


def fetch(name: str) -> str:
    if failing:
        raise OSError(2, "gone", name)
    return f"{name} at {time.time()}"


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
def works() -> Any:
    global failing
    failing = False
    yield
    failing = False


def test_what_was_drawn_and_read_is_given_again(tmp_path: Path) -> None:
    file, items = tmp_path / "runs.rec", [f"item {number}" for number in range(30)]
    recorded = draw.run(items, "page", backend=ScriptedBackend(), record=file)
    played = draw.run(items, "page", backend=NOTHING, replay=file)
    assert played.value == recorded.value and played.text == recorded.text and recorded.value[2]
    (run,) = Recording(file).runs.values()
    assert run.hosts and all(not host.lost for host in run.hosts)


def test_what_failed_then_or_fails_now_does_as_it_did(tmp_path: Path) -> None:
    global failing
    good, bad = tmp_path / "good.rec", tmp_path / "bad.rec"
    recorded = guarded.run("page", backend=ScriptedBackend(), record=good)
    failing = True
    failed = guarded.run("page", backend=ScriptedBackend(), record=bad)
    assert failed.value == "[Errno 2] gone: 'page'"
    assert guarded.run("page", backend=NOTHING, replay=good).value == recorded.value
    failing = False
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
