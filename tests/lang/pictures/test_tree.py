"""The prompt tree of a run as rows, as a page and as a drawing."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import ramify as rf
from ramify.backends.local import LocalBackend
from ramify.backends.scripted import ScriptedBackend
from ramify.backends.tiny import model_dir
from ramify.ir.errors import UsageError
from ramify.lang.cli import main
from ramify.lang.pictures.tree_rows import Row, Rows, rows_of
from ramify.lang.tree import PromptTrees

SVG = "{http://www.w3.org/2000/svg}"
CRUEL = "a</pre></details><script>throw 1</script> &amp; \"' \x1b\x00\u2028 \U0001f600 ]]> $title"


@rf.program
def forks(s, question: str):
    s += rf.system("Answer in one or two words, as briefly as you can.")
    s += rf.user(question)
    for branch in s.fork(2):
        branch += rf.assistant(rf.gen("draft", max_tokens=5))
        branch += rf.user("Sure?") + rf.assistant(rf.select("sure", ["yes", "no"]))
    s += rf.assistant(rf.gen("answer", max_tokens=5))


@rf.program
def loops(s, times: int):
    for number in range(times):
        with s.copy() as draft:
            draft += f"try {number}: " + rf.gen("x", max_tokens=2)
        s += f"number {number}: " + rf.gen("y", max_tokens=2)


@pytest.fixture(scope="module")
def local():
    backend = LocalBackend(model_dir(), device="cpu")
    yield backend
    backend.close()


def check(found: Rows) -> None:
    """Each row's tokens follow each other, and begin where those of the row above in the same stretch end."""
    for row in found.rows:
        places = [place for segment in row.segments for place in (segment.begin, segment.end)]
        assert places == sorted(places) and (not places or 0 <= places[0] < places[-1] <= found.length)
        assert row.ends_at is None or row.ends_at <= found.length
    for above, row in zip(found.rows, found.rows[1:], strict=False):
        if above.segments and row.segments:
            assert above.segments[-1].end == row.segments[0].begin


def count(found: Rows, origin: str) -> int:
    segments = [segment for row in found.rows for segment in row.segments if segment.origin == origin]
    return sum(segment.end - segment.begin for segment in segments)


def labels(rows: list[Row]) -> list[tuple[str, int]]:
    return [(row.label, row.depth) for row in rows if row.label]


def test_rows_hold_each_text_with_the_tokens_that_it_is(local):
    local.clear_cache()
    run = forks.options(disable=["cse"]).run("What is 3 + 4?", backend=local)
    found = rows_of(run)
    check(found)
    assert found.unit == "tokens"
    heads = [("the first state", 0), ("branch 0", 1), ("branch 1", 1), ("the first state goes on", 0)]
    assert labels(found.rows) == heads
    named = [row.name for row in found.rows if row.name]
    assert sorted(named) == ["[1] draft", "[2] sure", "[3] draft", "[4] sure", "[5] answer"]
    assert sum(row.ends_at is not None for row in found.rows) == 3
    first = next(row for row in found.rows if row.role == "system")
    assert first.text == "Answer in one or two words, as briefly as you can."
    assert first.segments[0].begin == 0 and first.segments[-1].origin == "computed"
    calls = run.state.prompt.context.calls
    generated = sum(len(call.done.token_ids) for call in calls if call.expression.kind == "gen")
    assert count(found, "generated") >= generated  # and the choices that were made
    again = rows_of(forks.options(disable=["cse"]).run("What is 3 + 4?", backend=local))
    check(again)
    assert count(again, "cached") > count(again, "computed") and count(again, "told") == 0
    assert again.length == found.length


def test_what_an_equal_request_answered_is_in_the_tree_as_well(local):
    local.clear_cache()
    found = rows_of(forks.run("What is 5 + 4?", backend=local))
    check(found)
    rows = [row for row in found.rows if row.name.endswith("draft")]
    assert len(rows) == 2 and all(row.segments for row in rows)
    assert {segment.origin for segment in rows[1].segments} == {"cached", "generated"}


def test_a_loop_that_forks_does_not_run_out_of_the_picture():
    found = rows_of(loops.run(30, backend=ScriptedBackend()))
    check(found)
    assert found.unit == "characters" and {depth for _, depth in labels(found.rows)} == {0, 1}
    assert [label for label, _ in labels(found.rows)][:3] == ["the first state", "branch 0", "the first state goes on"]
    assert sum(row.ends_at is not None for row in found.rows) == 31


def test_pages_and_drawings_hold_any_text():
    runs = forks.run_batch([{"question": CRUEL}, {"question": "x"}], backend=ScriptedBackend(lambda *_: CRUEL))
    trees = PromptTrees(runs)
    page = trees.html()
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))
    assert [word for word in ("src=", "href=", "url(", "@import", "http:", "https:") if word in page] == []
    assert len(list(root.iter("script"))) == 1
    texts = [node.text or "" for node in root.iter("pre")]
    assert any("</pre></details><script>throw 1" in text for text in texts)
    drawing = ElementTree.fromstring(runs[0].tree.svg())
    assert drawing.findtext(f"{SVG}title") == "prompt tree of forks" and drawing.findtext(f"{SVG}desc")
    with pytest.raises(UsageError, match="one run, not of 2"):
        trees.svg()
    assert "<h1>0 runs</h1>" in PromptTrees([]).html()


def test_what_failed_is_told():
    @rf.program
    def fails(s):
        s += "n: " + rf.gen("n", max_tokens=4)
        return s["n"]

    def refuse(text, params):
        return ValueError("no <answer>")

    (run,) = fails.run_batch([{}], backend=ScriptedBackend(refuse))
    (row,) = (row for row in rows_of(run).rows if row.is_failed)
    assert row.text == "ValueError: no <answer>"
    assert "no &lt;answer&gt;" in run.tree.html() and "no &lt;answer&gt;" in run.tree.svg()


def test_a_tree_of_a_thousand_generations_is_under_a_megabyte():
    @rf.program
    def wide(s):
        for number, branch in enumerate(s.fork(500)):
            branch += rf.user(f"try {number}") + rf.assistant(rf.gen("x"))
            branch += rf.user("Sure?") + rf.assistant(rf.gen("y"))

    trees = PromptTrees([wide.run(backend=ScriptedBackend(lambda *_: CRUEL * 20))])
    assert len(trees.html().encode()) < 1_000_000
    assert "more rows" in trees.svg()


def test_the_command(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("p.py").write_text("import ramify as rf\n@rf.program\ndef p(s, q: str = 'a'):\n    s += q + rf.gen('x')\n")
    Path("rows.jsonl").write_text('{"q": "one"}\n{"q": "two"}\n')
    words = ["tree", "p.py", "--model", "scripted"]
    assert main([*words, "--html", "t.html", "--svg", "t.svg", "--quiet"]) == 0
    assert capsys.readouterr().out == "t.html: html of 1 run\nt.svg: svg of 1 run\n"
    assert ElementTree.parse("t.svg") is not None
    assert main([*words, "--html", "t.html", "--data", "rows.jsonl"]) == 0
    assert "p, row 1" in Path("t.html").read_text()
    assert main([*words, "--svg", "t.svg", "--data", "rows.jsonl"]) == 2
    assert "--svg draws the tree of one run" in capsys.readouterr().err
    assert main(words) == 2
    assert "--html FILE or --svg FILE" in capsys.readouterr().err
