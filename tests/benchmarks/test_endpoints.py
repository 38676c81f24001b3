"""The benchmark of endpoints runs: its server answers, and its programs end. No time is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import endpoints

HERE = Path(endpoints.__file__).parent


def test_programs_end_against_the_server_that_only_waits():
    with endpoints._server() as url:
        command = [sys.executable, str(HERE / "endpoints_ramify.py"), url, "20", "2", "4"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"seconds", "processor", "megabytes"}
