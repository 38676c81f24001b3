"""What benchmarks.growth measures is what it says."""

from __future__ import annotations

import sys
from xml.etree import ElementTree

import pytest

from benchmarks.growth import _arguments, _filled_tree
from benchmarks.growth_plot import plot

SVG = "{http://www.w3.org/2000/svg}"


def figures(shared: float, unshared: float | None, count: int) -> dict[str, float | None]:
    return {"distinct": 100 + count, "summed": 101 * count, "shared": shared, "unshared": unshared, "alone": 1.0}


def drawn(source: str, kind: str) -> list[tuple[float, float]]:
    """The points of a line."""
    circles = ElementTree.fromstring(source).iter(f"{SVG}circle")
    return [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in circles if c.attrib["class"] == kind]


def test_the_tree_has_the_prompts_and_so_many_tokens() -> None:
    filled, prompts = _filled_tree(5_000)
    filled.check()
    assert 5_000 <= filled.num_tokens < 8_000
    assert all(filled.match_len(prompt) == len(prompt) == 612 for prompt in prompts)


def test_the_plot_has_what_was_measured() -> None:
    found = {"1": figures(2.0, 2.5, 1), "4": figures(4.0, 10.0, 4), "16": figures(8.0, None, 16)}
    source = plot(found, 100)
    assert [len(drawn(source, kind)) for kind in ("shared", "unshared", "distinct", "summed")] == [3, 2, 3, 3]
    shared, summed = drawn(source, "shared"), drawn(source, "summed")
    # The axes are logarithmic: twice a step is half as far up as four times the tokens, and each begins at the bottom.
    assert shared[0] == summed[0]
    risen = [shared[0][1] - y for _, y in shared], [summed[0][1] - y for _, y in summed]
    assert risen[1] == pytest.approx([2 * each for each in risen[0]], abs=0.2) and risen[0][2] > 10
    assert drawn(source, "unshared")[0][1] < shared[0][1]
    told = [text.text for text in ElementTree.fromstring(source).iter(f"{SVG}text")]
    assert {"a step: 2.0 to 8.0 ms", "nothing shared: 2.5 to 10.0 ms", "of all contexts: 101 to 1,616", "16"} <= set(
        told
    )
    assert not drawn(plot({"1": figures(2.0, 2.5, 1), "4": figures(4.0, None, 4)}, 100), "unshared")


def test_a_plot_needs_branches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["growth", "--only", "tree", "--svg", "growth.svg"])
    with pytest.raises(SystemExit):
        _arguments()
    assert "--svg draws branches" in capsys.readouterr().err
