"""`:load`, `:reload`, `:save` and `--script`."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import pytest
from ramify.ir.errors import UsageError
from ramify.lang.cli import main
from ramify.lang.session import Session

from .terminal import HELLO, Type


def rewrite(file: Path, text: str) -> None:
    """Another content, of another time: file systems tell times coarsely."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(text)
    os.utime(file, ns=(before + 10**9, before + 10**9))


def test_a_file_is_loaded_and_reloaded(type_in: Type, session: Session, tmp_path: Path) -> None:
    file = tmp_path / "loaded_here.py"
    rewrite(file, "import ramify as rf\n\nLIMIT = 2\nOLD = 1\n\n" + HELLO)
    assert type_in(f":load {file}\nLIMIT\n") == "loaded; its programs are hello\n2\n"
    type_in("r = hello.run('Bob')\n")
    assert session.log.num_runs == 1
    rewrite(file, "import ramify as rf\n\nLIMIT = 3\n\n" + HELLO.replace("Hi ", "Hello "))
    said = "loaded_here.py has changed on disk; :reload runs it again\n"
    assert type_in("LIMIT\nLIMIT\n") == f"{said}2\n2\n"
    assert type_in(":reload\nLIMIT\n") == "loaded; its programs are hello\n3\n"
    assert type_in("r = hello.run('Bob')\n").startswith("[user] Hello Bob\n")
    assert "NameError: name 'OLD'" in type_in("OLD\n")  # it is gone from the file
    rewrite(file, "1 +\n")
    assert "error: invalid syntax" in type_in(":reload\n") and type_in("LIMIT\n") == "3\n"
    file.unlink()
    assert "there is no file" in type_in(":reload\n")


def test_what_cannot_be_loaded(type_in: Type, tmp_path: Path) -> None:
    assert type_in(":load\n") == "error: :load takes a Python file\n  help: :load FILE\n"
    assert type_in(":reload\n") == "error: no file was loaded\n  help: :load FILE\n"
    assert type_in(f":load {tmp_path}/none.py\n").startswith("error: there is no file")


def test_a_session_is_saved_and_runs(
    type_in: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path_before = [*sys.path]
    (tmp_path / "greetings_here.py").write_text("GREETING = 'Hi'\n")
    saved = tmp_path / "saved.py"
    type_in(f":load {tmp_path}/greetings_here.py\n{HELLO}:usage\n1 / 0\nx = GREETING.upper()\nprint(x)\n")
    assert type_in(f":save {saved}\n") == f"{saved}: 3 inputs, and as comments 4 commands and failed inputs\n"
    # As in a new process, which has neither the loaded module nor its folder.
    monkeypatch.delitem(sys.modules, "greetings_here", raising=False)
    monkeypatch.setattr(sys, "path", path_before)
    monkeypatch.chdir("/")
    capsys.readouterr()
    runpy.run_path(str(saved), run_name="__main__")
    assert capsys.readouterr().out == "HI\n"
    text = saved.read_text()
    assert "# :usage\n" in text and "# 1 / 0\n" in text and HELLO.strip() in text
    type_in(f"x = 4\n:save {saved}\n")
    assert "x = 4\n" in saved.read_text()
    other = tmp_path / "greetings_here.py"
    assert type_in(f":save {other}\n").startswith(f"error: {other} is there and is no saved session")
    assert type_in(":save\n").startswith("error: :save takes the name of a file")


SCRIPT = """\
x = 1

for n in range(2):
    x += n

x
?x
1 / 0
:tree
'end'
"""


def test_a_script_stops_at_the_first_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "script"
    script.write_text(SCRIPT)
    assert main(["repl", "--script", str(script)]) == 1
    out = capsys.readouterr().out
    assert out.startswith(
        ">>> x = 1\n>>> for n in range(2):\n...     x += n\n...\n>>> x\n2\n>>> ?x\nx = 2\nof type int\n>>> 1 / 0\n"
    )
    assert out.endswith("ZeroDivisionError: division by zero\n")
    assert main(["repl", "--script", str(script), "--keep-going"]) == 1
    out = capsys.readouterr().out
    assert ">>> :tree\nerror: nothing was run yet\n" in out and out.endswith(">>> 'end'\n'end'\n")
    script.write_text("x = 1\nx\n")
    assert main(["repl", "--script", str(script)]) == 0
    script.write_text("raise SystemExit(4)\n")
    assert main(["repl", "--script", str(script)]) == 4


def test_a_script_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repl", "--script", str(tmp_path / "none")]) == 2
    assert "cannot be read: No such file" in capsys.readouterr().err
    with pytest.raises(UsageError):
        Session(sys.stdout).log.run(1)
