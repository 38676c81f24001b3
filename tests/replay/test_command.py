"""`ramify run --record` and `--replay`, and `ramify recording`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ramify.lang.cli import main

PROGRAM = """
import sys
import ramify as rf

@rf.tool
def price(item: str) -> float:
    "The price of goods."
    print("asked for", item, file=sys.stderr)
    return 20.0

@rf.program
def buy(s, item: str):
    s += rf.user(f"Buy a {item} for {price(item)}?") + rf.assistant(rf.gen("answer", max_tokens=4))
    return s["answer"]
"""
Ramify = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAMIFY_MODEL", "no-model-was-named")
    (tmp_path / "shop.py").write_text(PROGRAM)
    (tmp_path / "rows.jsonl").write_text('{"item": "lamp"}\n{"item": "chair"}\n{"item": "lamp"}\n')
    return tmp_path


@pytest.fixture
def ramify(capsys: pytest.CaptureFixture[str]) -> Ramify:
    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_a_run_is_recorded_and_played(ramify: Ramify) -> None:
    given = ("run", "shop.py", "--arg", "item=lamp")
    code, out, err = ramify(*given, "--model", "scripted", "--record", "one.rec")
    assert code == 0 and "asked for lamp" in err
    again, played, err = ramify(*given, "--replay", "one.rec")
    assert again == 0 and "asked for" not in err
    assert played.splitlines()[:-1] == out.splitlines()[:-1]
    assert played.splitlines()[-1].endswith("replayed from one.rec")
    assert (
        ramify(*given, "--replay", "one.rec", "--quiet", "--eager")[1] == out.split("value: ")[1].split("\n")[0] + "\n"
    )


def test_rows_are_recorded_and_played(ramify: Ramify) -> None:
    given = ("run", "shop.py", "--data", "rows.jsonl", "--quiet")
    code, out, _ = ramify(*given, "--model", "scripted", "--record", "rows.rec")
    again, played, _ = ramify(*given, "--replay", "rows.rec")
    assert again == code == 0 and without_times(played) == without_times(out)
    code, out, _ = ramify("recording", "rows.rec")
    assert code == 0 and out.splitlines() == [
        f"{number}: buy('{item}'), compiled: 1 request on scripted, 1 tool call"
        for number, item in enumerate(["lamp", "chair", "lamp"])
    ]
    code, out, _ = ramify("recording", "rows.rec", "--jsonl")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["type"] for event in events].count("lm") == [event["type"] for event in events].count("tool") == 3
    (call,) = [event for event in events if event["type"] == "tool" and event["arguments"] == {"item": "chair"}]
    assert (call["name"], call["value"], call["where"][:2]) == ("price", 20.0, ["shop.py", 13])


def without_times(lines: str) -> list[str]:
    return [re.sub(r'"wall_ms": [0-9.]+', "", line) for line in lines.splitlines()]


def test_another_argument_is_told_with_its_line(ramify: Ramify) -> None:
    ramify("run", "shop.py", "--arg", "item=lamp", "--model", "scripted", "--record", "one.rec")
    code, _, err = ramify("run", "shop.py", "--arg", "item=chair", "--replay", "one.rec")
    assert code == 2 and "shop.py:13" in err
    assert "this call of price is not in the recording" in err and "and were {'item': 'lamp'} at shop.py:13" in err
    code, out, err = ramify(
        "run", "shop.py", "--arg", "item=chair", "--replay", "one.rec", "--partial", "--model", "scripted"
    )
    assert code == 0 and "asked for chair" in err and "Buy a chair" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--record", "there.rec"], "there.rec exists already"),
        (["--replay", "gone.rec"], "there is no recording 'gone.rec'"),
        (["--replay", "there.rec"], "there.rec is no recording"),
        (["--partial"], "--partial needs --replay"),
        (["--replay", "there.rec", "--cache", "kv"], "--cache is for a model that computes"),
        (["--replay", "there.rec", "--record", "no/such.rec"], "there.rec is no recording"),
        (["--record", "no/such.rec"], "no/such.rec cannot be written"),
    ],
)
def test_mistakes_are_told(ramify: Ramify, folder: Path, words: list[str], told: str) -> None:
    (folder / "there.rec").write_text("some text\n")
    code, _, err = ramify("run", "shop.py", "--arg", "item=lamp", "--model", "scripted", *words)
    assert code == 2 and told in err
    code, _, err = ramify("recording", "gone.rec")
    assert code == 2 and "there is no recording 'gone.rec'" in err


def test_a_replay_loads_no_model_library(ramify: Ramify) -> None:
    ramify("run", "shop.py", "--arg", "item=lamp", "--model", "scripted", "--record", "one.rec")
    code = (
        "import sys; from ramify.lang.cli import main; "
        "code = main(['run', 'shop.py', '--arg', 'item=lamp', '--replay', 'one.rec', '--quiet']); "
        "sys.exit(code or 'torch' in sys.modules or 'tokenizers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
