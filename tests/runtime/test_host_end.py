"""What host code prints while the process ends is whole."""

from __future__ import annotations

import subprocess
import sys

ENDING = """
import os, time
from ramify.runtime.hostpool import host_pool

def work():
    for number in range(%d):
        time.sleep(0.02)
        os.write(1, f"{number}\\n".encode())

for _ in range(40):
    host_pool().submit(work)
time.sleep(0.05)
"""


def end_with(count: int) -> str:
    done = subprocess.run([sys.executable, "-c", ENDING % count], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def test_what_runs_is_ended_and_nothing_more_begins() -> None:
    lines = end_with(5).splitlines()
    assert lines.count("0") == lines.count("4") < 40


def test_code_without_end_does_not_hold_up_the_end() -> None:
    assert end_with(10**6).startswith("0\n")
