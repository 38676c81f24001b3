"""Files of programs, the values of --arg, rows of data, and values as JSON."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy
import pytest
from ramify.ir.errors import CompileError, UsageError
from ramify.lang.cli import main
from ramify.lang.failures import describe
from ramify.lang.loading import load_file, split_target
from ramify.lang.parameters import parse_arguments
from ramify.lang.plain import plain, to_json
from ramify.lang.rows import read_rows

TWO = """
import ramify as rf
from helpers_of_two import NAME

@rf.program
def first(s, question: str, n: int = 2, ratio: float = 1.0, flag: bool = False, items: list[str] = [],
          maybe: "str | None" = None, any_value=None, either: int | str = 0):
    s += question + NAME

@rf.program
def second(s, **rest):
    s += rf.gen("x")
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "programs.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def two(write: Any) -> Any:
    write("NAME = 'helper'", "helpers_of_two.py")
    return load_file(write(TWO))


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a file puts its folder on the path: not for the tests that follow."""
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_programs_in_the_files_order(two: Any) -> None:
    assert list(two.programs) == ["first", "second"]
    assert two.program("second") is two.programs["second"]


def test_which_program(two: Any, write: Any) -> None:
    with pytest.raises(UsageError, match=r"holds 2 programs: first, second\n  help: say which one: .*:first"):
        two.program(None)
    with pytest.raises(UsageError, match=r"no program 'frist'\n  help: did you mean 'first'\?"):
        two.program("frist")
    with_main = load_file(write(TWO.replace("second", "main"), "with_main.py"))
    assert with_main.program(None).name == "main"


def test_an_imported_program_is_found_by_name_only(write: Any, two: Any) -> None:
    write("import ramify as rf\n@rf.program\ndef lent(s): s += 'x'\n", "lender_of_programs.py")
    loaded = load_file(write("from lender_of_programs import lent\n", "borrower.py"))
    assert loaded.programs == {}
    assert loaded.program("lent").name == "lent"
    with pytest.raises(UsageError, match="defines no program"):
        loaded.program(None)


def test_a_file_that_is_no_module_of_the_library(write: Any) -> None:
    loaded = load_file(write("import ramify as rf\n@rf.program\ndef p(s): s += 'x'\n", "json.py"))
    assert sys.modules["json"] is json
    assert list(loaded.programs) == ["p"]


def test_a_folder_is_a_package(write: Any, tmp_path: Path) -> None:
    write("LIMIT = 3\n", "tool_of_mine/numbers.py")
    write(
        "import ramify as rf\nfrom .numbers import LIMIT\n@rf.program\ndef p(s):\n    return LIMIT\n",
        "tool_of_mine/inside.py",
    )
    write("from .inside import p\n", "tool_of_mine/__init__.py")
    loaded = load_file(tmp_path / "tool_of_mine")
    assert list(loaded.programs) == ["p"] and loaded.program(None).run().value == 3
    write("from .numbers import LIMIT\nraise KeyError('x')\n", "broken_tool/__init__.py")
    write("LIMIT = 3\n", "broken_tool/numbers.py")
    with pytest.raises(KeyError):
        load_file(tmp_path / "broken_tool")
    assert not [name for name in sys.modules if name.startswith("broken_tool")]
    write("", "bare/some.py")
    with pytest.raises(UsageError, match=r"bare is a folder without an __init__.py\n  help: name .*bare/some.py"):
        load_file(tmp_path / "bare")


def test_targets(tmp_path: Path) -> None:
    assert split_target("a/b.py:debate") == (Path("a/b.py"), "debate")
    assert split_target("a/b.py") == (Path("a/b.py"), None)
    odd = tmp_path / "odd:name"
    odd.touch()
    assert split_target(str(odd)) == (odd, None)


def test_files_that_cannot_be_loaded(write: Any, tmp_path: Path) -> None:
    write("", "debate.py")
    with pytest.raises(UsageError, match=r"no file '.*debat.py'\n  help: did you mean .*debate.py\?"):
        load_file(tmp_path / "debat.py")
    broken = write("x = 1\nif x ==== 2:\n    é = 3\n", "broken.py")
    with pytest.raises(CompileError) as caught:
        load_file(broken)
    assert str(caught.value) == f"{broken}:2\n    if x ==== 2:\n           ^^\nerror: invalid syntax"
    raising = write("def f():\n    return 1 / 0\nf()\n", "raising.py")
    with pytest.raises(ZeroDivisionError) as error:
        load_file(raising)
    assert f'  File "{raising}", line 3, in <module>\n    f()\n' in describe(error.value)
    assert "/lang/loading.py" not in describe(error.value)
    assert "/lang/loading.py" in describe(error.value, debug=True)
    assert "raising" not in sys.modules


def test_arguments_by_annotation(two: Any, write: Any) -> None:
    first = two.program("first")
    given = ["question=15", "n=3", "ratio=2", "flag=true", 'items=["a"]', "maybe=15", "any_value=[1, 2]", "either=x=y"]
    assert parse_arguments(first, given) == {
        "question": "15", "n": 3, "ratio": 2, "flag": True, "items": ["a"], "maybe": "15", "any_value": [1, 2],
        "either": "x=y",
    }  # fmt: skip
    assert parse_arguments(first, ["maybe=null", "any_value=plain text", "either=4"]) == {
        "maybe": None, "any_value": "plain text", "either": 4,
    }  # fmt: skip
    file = write("  kept as it is\n", "question.txt")
    assert parse_arguments(first, [f"question=@{file}"]) == {"question": "  kept as it is\n"}
    assert parse_arguments(first, ["question=@@name"]) == {"question": "@name"}
    assert parse_arguments(two.program("second"), ["whatever=1"]) == {"whatever": 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["question"], "--arg takes name=value, not 'question'"),
        (["n=1", "n=2"], "--arg n is given twice"),
        (["qestion=1"], "first has no argument 'qestion'\n  help: did you mean 'question'?"),
        (["n=two"], "--arg n must be int, got 'two'"),
        (["n=true"], "--arg n must be int, got 'true'"),
        (["items={}"], "--arg items must be list, got '{}'"),
        (["question=@nowhere.txt"], "--arg question: the file nowhere.txt cannot be read: No such file or directory"),
    ],
)
def test_arguments_that_are_wrong(two: Any, given: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arguments(two.program("first"), given)
    assert str(caught.value).startswith(message)


def test_rows_of_both_forms(two: Any, write: Any) -> None:
    lines = write('\ufeff{"a": 1}\n\n{"a": "\u2028"}\n', "rows.jsonl")
    assert read_rows(lines, two) == [{"a": 1}, {"a": "\u2028"}]
    assert read_rows(write(' [{"a": 1}]', "rows.json"), two) == [{"a": 1}]


def test_rows_from_a_pipe(two: Any, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    writer = threading.Thread(target=pipe.write_text, args=('{"a": 1}\n',))
    writer.start()
    assert read_rows(pipe, two) == [{"a": 1}]
    writer.join()


def test_rows_that_are_none(two: Any, write: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no data file"):
        read_rows(tmp_path / "none.jsonl", two)
    with pytest.raises(UsageError) as caught:
        read_rows(write('{"a": 1}\n{"a": [}\n', "rows.jsonl"), two)
    assert str(caught.value).partition("\n")[2].startswith('    {"a": [}\n           ^\n  help: data are JSON lines')
    with pytest.raises(UsageError, match=r"rows.json:2 is not JSON: expecting ':' delimiter\n     ..a. 1..\n"):
        read_rows(write('[{"a": 1},\n {"a" 1}]', "rows.json"), two)
    with pytest.raises(UsageError, match=r"rows.jsonl:1 is not JSON: .*\n    x{80}\n"):
        read_rows(write("x" * 200, "rows.jsonl"), two)
    for text in ("[" * 100_000, '{"a": ' + "1" * 5000 + "}"):
        with pytest.raises(UsageError, match=r"rows.json:1 cannot be read: .*(recursion|digits)"):
            read_rows(write(text, "rows.json"), two)
    with pytest.raises(UsageError, match=r"rows.jsonl:2 is int, not an object"):
        read_rows(write('{"a": 1}\n2\n', "rows.jsonl"), two)
    with pytest.raises(UsageError, match=r"rows.json: item 1 is str, not an object"):
        read_rows(write('[{"a": 1}, "b"]', "rows.json"), two)


def test_a_file_reads_its_own_data(write: Any) -> None:
    loaded = load_file(write("def load_rows(path):\n    for w in path.read_text().split():\n        yield {'w': w}\n"))
    assert read_rows(write("a b", "words.txt"), loaded) == [{"w": "a"}, {"w": "b"}]
    wrong = load_file(write("def load_rows(path):\n    return 3\n", "wrong.py"))
    with pytest.raises(UsageError, match="returned int, not an iterable"):
        read_rows(write("a b", "words.txt"), wrong)


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: Any


def test_values_as_json() -> None:
    loop: list[Any] = []
    loop.append(loop)
    value = {1: Point(1, (2.5, math.nan)), "s": {"b", "a"}, None: Colour.RED, "p": Path("a/b"), "o": object}
    assert plain(value) == {
        "1": {"x": 1, "y": [2.5, "nan"]}, "s": ["a", "b"], "None": "red", "p": "a/b", "o": "<class 'object'>",
    }  # fmt: skip
    assert plain([numpy.int64(3), numpy.float32(0.5), True]) == [3, 0.5, True]
    assert json.loads(to_json("é \ud800 \u2028 \n")) == "é \ud800 \u2028 \n"
    assert to_json("é") == '"é"'.encode()
    assert b"..." in to_json(loop)


CLASSES = """
import ramify as rf

class Judge:
    tone = "kind"

    @rf.program(backend="scripted")
    def ask(self, s, question: str):
        s += self.tone + question
        return s.text()

    @rf.program
    @classmethod
    def named(cls, s):
        s += cls.tone
        return s.text()

    @rf.program
    @staticmethod
    def free(s, flag=False):
        try:
            s += "free"
        except* ValueError:
            pass

class Strict(Judge):
    def __init__(self, tone):
        self.tone = tone

    @rf.program
    def ask(self, s, question):
        s += "strict"
"""


def test_programs_in_classes(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(CLASSES)
    loaded = load_file(path)
    assert list(loaded.methods) == ["Judge.ask", "Judge.named", "Judge.free", "Strict.ask"] and not loaded.programs
    assert split_target(f"{path}:Judge.ask") == (path, "Judge.ask")
    assert main(["run", f"{path}:Judge.ask", "--arg", "question=why?", "--quiet"]) == 0
    assert main(["run", f"{path}:Judge.named", "--quiet"]) == 0
    assert capsys.readouterr().out == "kindwhy?\nkind\n"
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert [line.split(":")[1] for line in out.splitlines() if line.startswith(str(path))] == list(loaded.methods)
    assert out.count("runs eagerly:") == 1
    assert main(["compile", f"{path}:Strict.ask"]) == 0
    assert "func @ask(%self: obj, %s: cell, %question: obj)" in capsys.readouterr().out
    assert main(["run", f"{path}:Strict.ask", "--arg", "question=why?"]) == 2
    assert "Strict.ask needs an instance of Strict" in capsys.readouterr().err
    assert main(["run", str(path)]) == 2
    assert "holds 4 programs: Judge.ask, Judge.named, Judge.free, Strict.ask" in capsys.readouterr().err
