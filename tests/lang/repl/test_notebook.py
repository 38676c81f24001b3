"""`%load_ext ramify`, and what objects look like in a notebook."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import pytest
import ramify as rf
from ramify.lang.html_views import run_html


@rf.program
def ask(s, who):
    s += rf.user("<b>Hi</b> " + who)
    s += rf.assistant(rf.gen("a", max_tokens=3))
    return s["a"]


@rf.program
def failing(s):
    s += rf.gen("a")
    raise ValueError("no & no")


class Shell:
    """What is used of an IPython shell."""

    def __init__(self) -> None:
        self.user_ns: dict[str, Any] = {"ask": ask}
        self.magics: dict[str, Callable[[str], None]] = {}
        self.callbacks: list[Callable[[], None]] = []
        self.events = self

    def register_magic_function(self, function: Callable[[str], None], kind: str, name: str) -> None:
        assert kind == "line"
        self.magics[name] = function

    def register(self, event: str, callback: Callable[[], None]) -> None:
        assert event == "post_run_cell"
        self.callbacks.append(callback)

    def unregister(self, event: str, callback: Callable[[], None]) -> None:
        self.callbacks.remove(callback)


def text_of(page: str) -> str:
    """The text of a piece of HTML, which must be well-formed and need nothing from elsewhere."""
    assert "<script" not in page and "http" not in page and len(page) < 100_000
    return "".join(ElementTree.fromstring(f"<body>{page}</body>").itertext())


def test_a_run_in_a_notebook() -> None:
    shown = ask.run("Bob\x1b[2J")._repr_html_()
    text = text_of(shown)
    assert "<b>Hi</b> Bob" in text and " 2 times user" in text and "value" in text and "1 call" in text
    assert "<b>" not in shown and "\x1b" not in shown
    (run,) = failing.run_batch([{}])
    assert "ValueErrorno & no" in text_of(run._repr_html_())


def test_long_texts_are_cut() -> None:
    run = ask.run("x" * 100_000)
    assert len(run_html(run)) < 20_000 and "characters)" in run_html(run)


def test_ir_and_explanations_in_a_notebook() -> None:
    compiled = ask.compile()
    assert text_of(compiled._repr_html_()).startswith("module @ask\n")
    assert "&lt;b&gt;Hi&lt;/b&gt;" in compiled._repr_html_()
    found = ask.explain(backend="tiny", rows=[{"who": "Bob"}])
    assert str(found) in text_of(found._repr_html_())


def test_the_extension(capsys: pytest.CaptureFixture[str]) -> None:
    shell = Shell()
    rf.load_ipython_extension(shell)
    rf.load_ipython_extension(shell)
    assert len(shell.callbacks) == 1
    shell.user_ns["ask"].run("Ann")
    assert capsys.readouterr().out == "[user] <b>Hi</b> Ann\n[assistant]  2 times user\n"
    ramify = shell.magics["ramify"]
    ramify("usage")
    assert capsys.readouterr().out.startswith("last run: prompt ")
    ramify("?ask")
    assert capsys.readouterr().out.startswith("program ask(who)\n")
    ramify("passes nobody")
    assert capsys.readouterr().out.startswith("error: there is no program 'nobody'")
    shell.user_ns["later"] = failing
    shell.callbacks[0]()
    ramify("runs")
    assert "ask" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no & no"):
        shell.user_ns["later"].run()
    assert capsys.readouterr().out == " 0 times user\n"
    ramify("")
    assert ":usage" in capsys.readouterr().out
    rf.unload_ipython_extension(shell)
    assert shell.callbacks == []


def test_the_extension_is_not_among_the_names_that_a_star_imports() -> None:
    assert "load_ipython_extension" not in rf.__all__
