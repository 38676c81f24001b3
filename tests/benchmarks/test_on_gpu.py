"""The one command for a machine with a GPU: it finds the checkout and what is missing, and ends in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from benchmarks import on_gpu

ROOT = Path(__file__).parents[2]


def run(out: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Without the parent of the checkout on the path, as on a machine where nothing was installed."""
    environment = os.environ | {"PYTHONPATH": path, "OUT": str(out)}
    command = [sys.executable, "-m", "benchmarks.on_gpu", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False)


def test_tests_and_benchmark_in_one_go(tmp_path: Path) -> None:
    tests = "tests/cuda/test_models.py::test_tree_attention_equals_flat"
    done = run(tmp_path / "out", "--tests", tests, "--gpu", "--device cpu --shapes tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests: went well. benchmark: went well." in done.stdout
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"tests.txt", "tests.xml", "gpu.txt", "gpu.json"}
    assert "12 passed" in (tmp_path / "out" / "tests.txt").read_text()
    assert json.loads((tmp_path / "out" / "gpu.json").read_text())["runs"]["tiny: prefill"]["ms"] > 0


def test_what_fails_is_said_and_the_rest_is_run(tmp_path: Path) -> None:
    failing = tmp_path / "test_failing.py"
    failing.write_text("def test_it():\n    assert False\n")
    done = run(tmp_path / "out", "--tests", str(failing), "--gpu", "--shapes none")
    assert done.returncode == 1 and "tests: FAILED. benchmark: FAILED." in done.stdout, done.stdout + done.stderr
    assert "1 failed" in (tmp_path / "out" / "tests.txt").read_text()
    assert "invalid choice: 'none'" in (tmp_path / "out" / "gpu.txt").read_text()


def test_what_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_gpu, "_GRACE_SECONDS", 0.2)
    stubborn = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('here', flush=True); time.sleep(600)"
    )
    begun = time.monotonic()
    assert not on_gpu._run([sys.executable, "-c", stubborn], tmp_path / "log", dict(os.environ), 2.0)
    assert time.monotonic() - begun < 300


def test_what_is_interrupted_says_what_it_has_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_gpu, "_GRACE_SECONDS", 100.0)
    patient = "import time\ntry:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    print('found', flush=True)"
    assert on_gpu._run([sys.executable, "-c", patient], tmp_path / "log", dict(os.environ), 105.0)
    assert (tmp_path / "log").read_text() == "found\n"


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_gpu, "NEEDED", ("json", "surely_not_there"))
    with pytest.raises(SystemExit, match="not installed: surely_not_there; --wheels FOLDER"):
        on_gpu._environment(tmp_path, None)


def test_wheels_are_taken_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are not installed: there is a pytest already."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "surely_not_there-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("surely_not_there.py", "value = 5\n")
        about = "surely_not_there-1.0.dist-info/"
        wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: surely-not-there\nVersion: 1.0\n")
        wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(about + "RECORD", "")
    (wheels / "pytest-1.0-py3-none-any.whl").write_text("this is no wheel")
    monkeypatch.setattr(on_gpu, "NEEDED", ("surely_not_there", "pytest"))
    folder = tmp_path / "work"
    folder.mkdir()
    environment = on_gpu._environment(folder, wheels)
    code = "import surely_not_there, ramify, benchmarks.gpu_batches; print(surely_not_there.value, ramify.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split() == ["5", str(folder / "ramify" / "__init__.py")]
