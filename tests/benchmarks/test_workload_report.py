"""The workloads' figures survive an interruption, and the report puts them into a page and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.workload_programs import brief, workloads
from benchmarks.workload_report import Results, entry_of, put_report
from benchmarks.workload_store import Store

SETTINGS = {"size": "tiny", "rows": "quick"}
MACHINE = {"cores": 2, "processor": "one", "load_before": 0.5, "date": "2026-01-02T03", "commit": "abc"}


def entry(config: str, computed: int, seconds: float) -> dict[str, object]:
    numbers = {"calls": 4, "prompt": 1000, "computed": computed, "bound": 250, "generated": 9, "seconds": seconds}
    return {"config": config, "rows": 2} | numbers


def filled(path: Path) -> Store:
    store = Store(str(path), SETTINGS, MACHINE, resume=False)
    for turn, seconds in enumerate((1.0, 3.0, 2.0)):
        store.add("rag", turn, entry("all", 300, seconds))
        store.add("rag", turn, entry("none", 600, 2 * seconds))
        store.add("rag", turn, {"config": "without dce", "same_as": "all", "rows": 2})
        store.add("rag", turn, entry("without reorder", 600, 2 * seconds))
        store.add("rag", turn, entry("by hand", 300, seconds / 2))
    return store


def test_a_run_goes_on_from_what_is_there(tmp_path):
    path = tmp_path / "figures.json"
    first = filled(path)
    second = Store(str(path), SETTINGS, MACHINE, resume=True)
    assert second.runs == first.runs and second.has("rag", 2, "none")
    assert not second.has("rag", 3, "none") and not second.has("mmlu", 0, "all")
    assert Store(str(path), SETTINGS, MACHINE, resume=False).runs == {}
    with pytest.raises(SystemExit, match="was measured with"):
        Store(str(path), SETTINGS | {"size": "0.6b"}, MACHINE, resume=True)
    with pytest.raises(SystemExit, match="--resume needs --json"):
        Store(None, SETTINGS, MACHINE, resume=True)
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(path.read_text())["machine"]["size"] == "tiny"


def test_the_report_takes_its_place_in_a_page(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text("# Title\n\nBefore.\n\n<!-- workloads-tiny: written by benchmarks.workloads -->\nold\n"
                    "<!-- /workloads-tiny -->\n\nAfter.\n")  # fmt: skip
    store = filled(tmp_path / "figures.json")
    results = Results(store.runs, store.about)
    put_report(page, results)
    text = page.read_text()
    put_report(page, results)
    assert page.read_text() == text
    assert text.startswith("# Title\n\nBefore.\n") and text.endswith("\n\nAfter.\n") and "old" not in text
    assert "| `rag` | 2 | 4 | 1,000 | 600 | 300 | 250 | 40.0% | 70.0% | 75.0% | 4.00 | 2.00 | 1.00 |" in text
    assert "| `rag` | = | ×2.00, +300 tokens |" in text and "medians of 3 rounds" in text
    plot = ElementTree.parse(tmp_path / "workloads-tiny.svg").getroot()
    texts = [node.text for node in plot.iter("{http://www.w3.org/2000/svg}text")]
    assert {"rag", "60.0%", "30.0%", "2.00", "0.50"} <= set(texts)


def test_what_was_not_run_is_what_it_is_like():
    entries = [entry("all", 1, 1.0), {"config": "without dce", "same_as": "all"}]
    assert entry_of(entries, "without dce") is entries[0]


def test_brief_rows_are_fewer_and_smaller(data):
    for workload in workloads(data, scale=1):
        small = brief(workload)
        assert 0 < len(small.rows) <= len(workload.rows) and small.rows[0].keys() == workload.rows[0].keys()
    (mmlu,) = map(brief, workloads(data, 1, ["mmlu"]))
    assert len({row["subject"] for row in mmlu.rows}) == 1
