"""The drawing of the IR: every op is in it, boxes do not lie on one another, and arrows go down."""

from __future__ import annotations

from itertools import combinations
from xml.etree import ElementTree

import pytest
import ramify as rf
from ramify.ir.core import Function
from ramify.ir.parser import parse
from ramify.lang.explain_boxes import Box, boxes_of
from ramify.lang.explain_graph import _arrows
from ramify.lang.explain_layout import place

from .corpus import CASES

SLACK = 0.01
PROGRAMS = {case.program.name: case.program for case in CASES if isinstance(case.program, rf.Program)}


def functions() -> list[Function]:
    modules = [program.compile().module for program in PROGRAMS.values()]
    return [function for module in modules for function in module.functions.values()]


def check(boxes: list[Box]) -> None:
    """No box of a region lies on another one, what comes after stands below, and parts are inside."""
    for one, other in combinations(boxes, 2):
        beside = one.right <= other.x + SLACK or other.right <= one.x + SLACK
        assert beside or one.bottom <= other.y + SLACK or other.bottom <= one.y + SLACK, (one.title, other.title)
    for box in boxes:
        assert all(boxes[number].bottom <= box.y + SLACK for number in box.after)
        for part in box.parts:
            for inner in part.boxes:
                assert part.x <= inner.x and inner.right <= part.x + part.width + SLACK
                assert part.y <= inner.y and inner.bottom <= part.y + part.height + SLACK
            assert part.x + part.width <= box.right + SLACK and part.y + part.height <= box.bottom + SLACK
            check(part.boxes)


def test_boxes_hold_all_ops_and_do_not_overlap():
    drawn = functions()
    assert len(drawn) > 80
    for function in drawn:
        boxes = boxes_of(function, lambda op: "")
        width, height = place(boxes)
        check(boxes)
        assert all(box.right <= width and box.bottom <= height for box in boxes)
        held = [op for each in boxes for box in each.walk() for op in box.ops]
        assert len(set(map(id, held))) == len(held)
        missing = {op.name for op in function.body.walk()} - {op.name for op in held}
        assert missing <= {"py.const", "py.unbound", "py.expr", "prompt.part", "cell.of", "flow.yield"}


CHAIN = """
module @chain

func @chain(%s: cell, %x: obj) {
  %p = cell.load %s : prompt
  %c = py.const {value = "Be brief."} : obj
  %a = prompt.role %p {role = "system", mark = "begin"} : prompt
  %b = prompt.append %a, %c : prompt
  %d = prompt.role %b {role = "system", mark = "end"} : prompt
  %e = prompt.append %d, %x : prompt
  %g = lm.gen %e {name = "answer"} : prompt
  %h = prompt.role %g {role = "assistant", mark = "end"} : prompt
  cell.store %s, %h
  %v = prompt.get %h {name = "answer"} : obj
  flow.return %v
}
"""


def test_what_builds_a_prompt_shares_a_box():
    (function,) = parse(CHAIN).functions.values()
    boxes = boxes_of(function, lambda op: "1 call")
    texts = {box.kind: [row.text for row in box.rows] for box in boxes}
    assert texts == {
        "argument": ["x"],
        "prompt": ["from s", "system ▸ 'Be brief.' ◂", "{x}"],
        "gen": ["gen answer ◂", "1 call", "→ s"],
        "read": ["read answer"],
        "end": ["return v"],
    }


def test_what_depends_on_a_prompt_in_the_making_is_not_drawn_before_it():
    text = CHAIN.replace(
        "  %e = ", '  %t = prompt.text %d : text\n  %y = py.expr %t {code = "len(t)", inputs = ["t"]} : obj\n  %e = '
    )
    (function,) = parse(text.replace("prompt.append %d, %x", "prompt.append %d, %y")).functions.values()
    boxes = boxes_of(function, lambda op: "")
    place(boxes)
    check(boxes)
    assert [box.kind for box in boxes].count("prompt") == 2


@rf.program
def helper_and_loop(s, items):
    s += rf.system("Be brief.")
    for item in items:
        s += rf.user(f"<{item}> & more")
        answer = short_answer(s)
        if answer == "yes":
            break
    s += rf.assistant(rf.select("kind", ["good", "bad"]))


def short_answer(s):
    s += rf.assistant(rf.gen("answer", max_tokens=2))
    return s["answer"]


def halve(s, texts):
    if len(texts) == 1:
        s += rf.user(texts[0]) + rf.assistant(rf.gen("sum", max_tokens=2))
        return s["sum"]
    halve(s.copy(), texts[1:])
    return s.text()


@rf.program
def halves(s, texts):
    return halve(s, texts)


def test_a_state_comes_from_the_box_around_branches():
    function = halves.compile().module.functions["halve"]
    boxes = boxes_of(function, lambda op: "")
    (branch,) = (box for box in boxes if box.kind == "flow")
    after = next(box for box in boxes[boxes.index(branch) :] if [row.text for row in box.rows] == ["from s"])
    arrows = list(_arrows(boxes))
    assert [arrow.source for arrow in arrows if arrow.target is after] == [branch]
    assert "call halve(state, texts[1:])" in {row.text for box in boxes for row in box.rows}


@pytest.fixture(scope="module")
def page():
    return ElementTree.fromstring(
        helper_and_loop.options(disable="inline")
        .explain([{"items": ["a", "b"]}])
        .html()
        .removeprefix("<!DOCTYPE html>")
    )


def test_the_drawing_is_accessible_and_leads_on(page):
    drawings = [node for node in page.iter("svg") if node.get("class") == "graph"]
    assert len(drawings) == 2
    ids = {node.get("id"): node for node in page.iter() if node.get("id")}
    for drawing in drawings:
        title, about = (ids[name] for name in drawing.get("aria-labelledby").split())
        assert "as a graph" in title.text and "boxes from top to bottom" in about.text
    nodes = [node for node in page.iter("g") if node.get("class") == "node"]
    assert all(node.get("tabindex") == "0" and node.find("title").text for node in nodes)
    texts = [text.text for drawing in drawings for text in drawing.iter("text")]
    assert "gen answer ◂" in texts and any(text.endswith("prefill, 4 decode") for text in texts)
    calls = [link for link in page.iter("a") if link.get("href") == "#graph-1"]
    assert len(calls) == 1 and "call short_answer" in "".join(calls[0].itertext())


def test_arrows_of_a_box_are_shown_with_it(page):
    arrows = {node.get("id"): node.get("class") for node in page.iter("path")}
    used = [node.get("href").removeprefix("#") for node in page.iter("use")]
    assert set(used) == set(arrows) and len(used) == 2 * len(arrows)
    assert "arrow chain" in arrows.values() and "arrow value" in arrows.values()


def test_a_function_of_very_many_ops_is_not_drawn(monkeypatch):
    monkeypatch.setattr("ramify.lang.explain_graph._MOST_OPS", 12)
    text = helper_and_loop.options(disable="inline").explain([], passes=False).html()
    assert "ops, not drawn" in text and text.count('<svg class="graph"') == 1
