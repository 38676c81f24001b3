"""`%load_ext ramify` in IPython itself."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("IPython", reason="IPython is not installed: the extension is tried on a stand-in only")

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

ASK = """\
import ramify as rf
@rf.program
def ask(s, who):
    s += rf.user("Hi " + who) + rf.assistant(rf.gen("a"))
    return s["a"]
"""


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    return out


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: io.StringIO) -> Iterator[InteractiveShell]:
    # An IPython takes the place of the main module.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config, ipython_dir=str(tmp_path))
    shell.run_line_magic("load_ext", "ramify")
    cell(shell, ASK)
    yield shell
    shell.run_line_magic("unload_ext", "ramify")
    shell.restore_sys_module_state()
    InteractiveShell.clear_instance()


def cell(shell: InteractiveShell, code: str) -> Any:
    """The value of a cell; what it raises is raised."""
    done = shell.run_cell(code)
    done.raise_error()
    return done.result


def test_cells_and_magics(shell: InteractiveShell, out: io.StringIO) -> None:
    def told(code: str) -> str:
        before = len(out.getvalue())
        cell(shell, code)
        return out.getvalue()[before:]

    assert told("r = ask.run('Bob')") == "[user] Hi Bob\n[assistant]  2 times user\n"
    assert told("%ramify tree").endswith(
        "assistant: [1] a = ' 2 times user'  (prompt 3 tokens, 0 cached, generated 3)\n"
    )
    assert told("%ramify ?ask").startswith("program ask(who)\n")
    assert told("%ramify ir aks") == "error: there is no program 'aks'\n  help: did you mean 'ask'?\n"
    assert ":usage" in told("%ramify")
    assert "Hi Ann" in told("for name in ['Ann']:\n    ask.run(name)\n")
    assert told("%unload_ext ramify\n" + ASK) == told("r = ask.run('Bob')") == ""


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("ask.run('<Bob>')", "Hi &lt;Bob&gt;"),
        ("ask.compile()", "module @ask"),
        ("ask.explain(rows=[{'who': 'Bob'}], backend='tiny')", "ask over 1 row"),
    ],
)
def test_what_objects_look_like(shell: InteractiveShell, code: str, shown: str) -> None:
    views, _ = shell.display_formatter.format(cell(shell, code))
    assert shown in views["text/html"] and views["text/plain"]
