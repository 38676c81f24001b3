"""The engine with its model on a device that refuses to mix its tensors with the host's, as a GPU does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(checkpoint: Path) -> dict[str, Any]:
    """In a process of its own: see strict_device.py."""
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.cuda.strict_run", str(checkpoint)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_everything_gives_what_it_gives_on_a_cpu(found: dict[str, Any]) -> None:
    assert found["checks"] == dict.fromkeys(found["checks"], True)


@pytest.mark.parametrize(("kind", "most"), [("greedy", 1), ("drawn", 1), ("filtered", 2)])
def test_a_step_waits_a_few_times_however_many_sequences_decode(found: dict[str, Any], kind: str, most: int) -> None:
    """Each wait is a gap in a GPU's work. The steps are five, of eight sequences."""
    waits = found["waits"][kind]
    assert all(place.startswith("runtime/") for place in waits)
    assert 0 < sum(waits.values()) <= 5 * most, waits
