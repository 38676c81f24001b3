"""Files that rows name: a resumed batch notices that one is another now, and takes nothing else for a file."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import ramify as rf
from ramify.backends.scripted import ScriptedBackend
from ramify.lang.named_files import named_files


@rf.program
def filled(s, template: str, n: int) -> str:  # type: ignore[no-untyped-def]
    with open(template) as file:
        s += file.read().format(n=n) + rf.gen("x")
    return s["x"]


@rf.program
def logged(s, log: str, n: int) -> str:  # type: ignore[no-untyped-def]
    s += f"{n}" + rf.gen("x")
    with open(log, "a") as file:
        file.write(s["x"])
    return s["x"]


def test_a_changed_template_is_noticed_on_resuming(tmp_path: Path) -> None:
    template, out = tmp_path / "template.txt", tmp_path / "out.jsonl"
    template.write_text("Number {n}: ")
    rows = [{"template": str(template), "n": n} for n in range(3)]
    filled.run_batch(rows[:2], backend=ScriptedBackend(), out=out)
    assert all(list(json.loads(line)["files"]) == [str(template)] for line in out.read_text().splitlines())
    template.touch()
    filled.run_batch(rows[:2], backend=ScriptedBackend(), out=out, resume=True)
    template.write_text("The number {n}: ")
    with pytest.warns(rf.ChangedFileWarning, match=r"has changed since: .*template\.txt; they are not run again"):
        runs = filled.run_batch(rows, backend=ScriptedBackend(), out=out, resume=True)
    assert len(runs) == 3 and "The number" not in runs[0].text and "The number" in runs[2].text
    with warnings.catch_warnings():  # rows that found it otherwise say that it changes
        warnings.simplefilter("error")
        template.write_text("{n}")
        assert len(filled.run_batch(rows, backend=ScriptedBackend(), out=out, resume=True)) == 3


def test_what_the_program_writes_is_no_change(tmp_path: Path) -> None:
    log, out = tmp_path / "log.txt", tmp_path / "out.jsonl"
    rows = [{"log": str(log), "n": n} for n in range(3)]
    logged.run_batch(rows, backend=ScriptedBackend(), out=out, max_in_flight=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(logged.run_batch([*rows, rows[0]], backend=ScriptedBackend(), out=out, resume=True)) == 4


def test_only_files_are_files(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("a")
    assert list(named_files([file, str(file), 3, None, "", "what is this?", str(tmp_path), "a\0b", "x" * 9999])) == [
        str(file)
    ]
