"""Whole scripts in SGLang's style, run as users run them: only the import line and the backend are others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "sglang_scripts"
EXPECTED = {
    "quick_start": r"=+ single =+\nsystem : You are.*answer_1.*=+ stream =+\n<\|im_start\|>system.*=+ batch =+\n\[\{",
    "tour": r"use a (calculator|search engine).*In summary.*A: [\d.]+ ?\n.*What is 3 \+ 3\?\nA:.*What is 1 \+ 1\?\nA:",
    "choices": r"\A((True|False|Unknown) 3 3\n){3}\Z",
    "parallel": r"\A(\[\d\].*->.*\n){5}2 paragraphs\n\Z",
    "async_stream": r"\n'7' (1\n'' )?2\n.*done\n\Z",  # both tokens come at once where their consumer was slower
}


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_a_script_runs(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(FOLDER / f"{name}.py")]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(EXPECTED[name], done.stdout, re.DOTALL if name != "parallel" else 0), done.stdout
