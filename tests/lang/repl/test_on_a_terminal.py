"""The REPL on a real terminal, in tmux: one process for all tests of this file.

Each of them finds it at an empty prompt, and leaves it there.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .terminal import HELLO, Tmux

FILE = (
    "import ramify as rf\n\n"
    + HELLO
    + """
WORDS = " ".join(f"w{number:02}" for number in range(40))

@rf.program
def wide(s):
    s += WORDS
    s += rf.gen("a")
"""
)

# Empty lines, one of them without its indentation, as they are in files.
PASTED = """\
def total(numbers):
    found = 0

    for number in numbers:

        found += number

    return found
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("terminal")
    (folder / "hello_file.py").write_text(FILE)
    return folder


@pytest.fixture(scope="module")
def terminal(folder: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed: the REPL is not tried on a terminal")
    # Not the folder itself: Python would take the `ramify` in it, where the history is, for a package.
    repl = f"XDG_STATE_HOME={folder}/state {sys.executable} -m ramify.lang.cli repl hello_file.py --model scripted:0.1"
    # Enter begins the next session once one has ended.
    terminal = Tmux(f"cd {folder}; while true; do {repl}; echo left with $?; read -r line; done")
    terminal.wait_for("^>>>")
    yield terminal
    terminal.end()


@pytest.fixture
def tmux(terminal: Tmux) -> Tmux:
    terminal.wait_for(r"^>>>\s*\Z")
    terminal.resize(100)
    terminal.keys("C-l")
    terminal.wait_for(r"\A>>>\s*\Z")
    return terminal


def test_lines_are_edited(tmux: Tmux) -> None:
    tmux.keys("hello.opt", "Tab")
    tmux.wait_for(r"^>>> hello\.options")
    tmux.keys("C-c", "def f(x):", "Enter", "return x + 1", "Enter", "Enter")
    tmux.wait_for(r"^\.\.\.     return x \+ 1\n\.\.\.\s*\n>>>")
    tmux.keys("f(1)", "Enter")
    tmux.wait_for(r"^2\n>>>")
    tmux.keys("Up")
    tmux.wait_for(r"^>>> f\(1\)\s*\Z")
    tmux.keys("C-c")


def test_arguments_of_a_run_are_completed(tmux: Tmux) -> None:
    tmux.keys("hello.run(", "Tab")
    assert "backend=" in tmux.wait_for(r"^ +who=$")
    tmux.keys("who", "Tab")
    tmux.wait_for(r"^>>> hello\.run\(who=")
    tmux.keys("'Ann')", "Enter")
    tmux.wait_for(r"^user: Hi Ann\nassistant:  [ \w]+\nvalue:  [ \w]+\nprompt 3 tokens, .*\n>>>")


def test_a_function_with_empty_lines_is_pasted(tmux: Tmux) -> None:
    tmux.paste(PASTED)
    tmux.wait_for(r"^\.\.\.     return found\n\.\.\.\s*\Z")
    tmux.keys("Enter", "total([1, 2, 39])", "Enter")
    shown = tmux.wait_for(r"^42\n>>>")
    assert "Error" not in shown and "error" not in shown


def test_ctrl_c_while_a_generation_runs_keeps_the_session(tmux: Tmux) -> None:
    tmux.keys("kept = 7", "Enter", "hello.run('Bob', backend='scripted:5')", "Enter")
    tmux.wait_for(r"^assistant:  \w+")
    tmux.keys("C-c")
    tmux.wait_for(r"^interrupted\n>>>")
    tmux.keys("kept, hello.run('Ann').ok", "Enter")
    tmux.wait_for(r"^\(7, True\)\n>>>")


def test_a_terminal_that_is_narrowed_while_a_run_is_shown(tmux: Tmux) -> None:
    tmux.keys("wide.run(backend='scripted:1.5')", "Enter")
    tmux.wait_for(r"^w00 .* w24$")
    tmux.resize(40)
    shown = tmux.wait_for(r"^prompt \d+ tokens")
    assert re.findall(r"w\d\d", shown) == [f"w{number:02}" for number in range(40)]
    assert "starting" not in shown


def test_commands(tmux: Tmux, folder: Path) -> None:
    tmux.keys(":pas", "Tab")
    tmux.wait_for("^>>> :passes")
    tmux.keys("hel", "Tab")
    tmux.wait_for("^>>> :passes hello")
    tmux.keys(" promote", "Enter")
    assert "\x1b[32m+" in tmux.coloured(r"^\+  %s1 = cell.load")
    tmux.keys(":time 1 + 1", "Enter")
    tmux.wait_for(r"^2\ntime: [\d.]+ ms\n>>>")
    with (folder / "hello_file.py").open("a") as file:
        file.write("LIMIT = 3\n")
    tmux.keys("1 + 2", "Enter")
    tmux.wait_for(r"^3\nhello_file\.py has changed on disk; :reload runs it again\n>>>")
    tmux.resize(40)
    tmux.keys(":reload", "Enter", "hello.run('Bob')", "Enter")
    tmux.wait_for(r"^value:  [ \w]+\nprompt 3 tokens, 0 cached")
    tmux.keys(":runs", "Enter")
    tmux.wait_for(r"^ +\d+ +hello")
    tmux.keys(":tree", "Enter")
    tmux.wait_for(r"^└── assistant: \[1\] a = .*\n")


def test_a_program_is_stepped(tmux: Tmux) -> None:
    tmux.keys(":step hello 'Bob'", "Enter")
    tmux.wait_for(r"^step 1, hello_file\.py:5 in hello: append\n.*\n +\^+\n\(hello:5\)")
    tmux.keys("p wh", "Tab")
    tmux.wait_for(r"^\(hello:5\) p who")
    tmux.keys("Enter")
    tmux.wait_for(r"^'Bob'\n\(hello:5\)")
    tmux.keys("Enter", "typed", "C-c", "n", "Enter")
    tmux.wait_for(r"hello: gen a\n.*\n +\^+\n\(hello:6\)")
    tmux.keys("C-d")
    tmux.wait_for(r"^\(hello:6\)\s*\n>>>")
    tmux.keys("@program", "Enter", "def slow(s):", "Enter", "print('now')", "Enter", "s += gen('a')", "Enter", "Enter")
    tmux.wait_for(r"^\.\.\.\s*\n>>>")
    tmux.keys("slow = slow.options(backend='scripted:5')", "Enter", ":step slow", "Enter", "c", "Enter")
    tmux.wait_for("^now$")
    tmux.keys("C-c")
    tmux.wait_for(r"interrupted\n>>>")


def test_the_history_of_one_session_is_that_of_the_next(tmux: Tmux, folder: Path) -> None:
    tmux.keys("first = 'typed before'", "Enter", "if first:", "Enter", "first.upper()", "Enter", "Enter")
    tmux.wait_for(r"^'TYPED BEFORE'\n>>>")
    tmux.keys("C-d")
    tmux.wait_for("^left with 0")
    tmux.keys("Enter")
    tmux.wait_for(r"^left with 0\s*\n\s*ramify .*\n>>>")
    tmux.keys("Up")
    tmux.wait_for(r"^>>> if first:\n\.\.\.     first\.upper\(\)")
    tmux.keys("Enter")  # only the input is kept, not what it gave a value to
    tmux.wait_for("^NameError: name 'first' is not defined")
    assert (folder / "state" / "ramify" / "history").stat().st_mode & 0o077 == 0
