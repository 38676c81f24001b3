"""The frontend benchmark runs, and its report says what holds. No time is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("case", ["one_gen", "one_gen_one_core", "thread_round_trip", "fork_join", "compile_time"])
def test_a_case_gives_its_figure(case):
    script = ROOT / "benchmarks" / "frontend_ramify.py"
    done = subprocess.run([sys.executable, str(script), case, "1"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (figure,) = json.loads(done.stdout).values()
    assert figure > 0


def test_a_bar_holds_on_its_own_side(tmp_path, capsys):
    bars = {
        "low": report.Bar(2.0, 3.0, "ms"),
        "missed": report.Bar(4.0, 3.0, "ms"),
        "high": report.Bar(4.0, 3.0, "x", at_most=False),
        "unknown": report.Bar(None, 3.0, "ms"),
    }
    report.write(str(tmp_path / "figures.json"), {"raw": [1]}, bars, {"cores": 2})
    written = json.loads((tmp_path / "figures.json").read_text())
    assert {name: bar["holds"] for name, bar in written["bars"].items()} == {
        "low": True,
        "missed": False,
        "high": True,
        "unknown": None,
    }
    assert "MISSED" in capsys.readouterr().out
