"""The fixture `ramify_replay` in tests of a user's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import ramify as rf
from ramify.backends.scripted import ScriptedBackend

def never(prompt, params):
    raise AssertionError("the model was asked")

@rf.program
def ask(s, question):
    s += question + rf.gen("x", max_tokens=3)
    return s["x"]

def test_answers(ramify_replay):
    assert ask.run("What?", backend=ScriptedBackend(REPLY)).value

def test_fails(ramify_replay):
    assert not ask.run("What?", backend=ScriptedBackend(REPLY)).value

def test_without():
    assert ask.run("Why?", backend=ScriptedBackend()).value
"""


def run(folder: Path, *words: str) -> str:
    """What pytest says of the folder's tests, with no plugin but this one."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "ramify.lang.pytest_plugin",
        "-p",
        "no:cacheprovider",
        *words,
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def test_a_test_is_recorded_once_and_played_from_then_on(tmp_path: Path) -> None:
    file = tmp_path / "test_mine.py"
    file.write_text(TESTS.replace("REPLY", "never"))
    assert "there is no recording" in run(tmp_path, "--ramify-record=none", "-k", "answers")
    file.write_text(TESTS.replace("ScriptedBackend(REPLY)", "ScriptedBackend()"))
    assert "1 failed, 2 passed" in run(tmp_path)
    kept = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.rec")]
    assert kept == ["recordings/test_mine/test_answers.rec"]  # that of the test that failed is not kept
    file.write_text(TESTS.replace("REPLY", "never"))
    assert "1 passed" in run(tmp_path, "--ramify-record=none", "-k", "answers")
    assert "1 failed" in run(tmp_path, "--ramify-record=all", "-k", "answers")
    assert [path.name for path in tmp_path.rglob("*.rec*")] == ["test_answers.rec"]


def test_pytest_starts_without_ramify_and_torch(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\ndef test_nothing():\n    loaded = [name for name in sys.modules if name.startswith('ramify.')]\n"
        "    assert sorted(loaded) == ['ramify.lang', 'ramify.lang.pytest_plugin']\n"
        "    assert 'torch' not in sys.modules and 'msgspec' not in sys.modules\n"
    )
    assert "1 passed" in run(tmp_path)
