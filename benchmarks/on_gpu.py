"""All there is to run on a machine with a GPU, in one command: `python -m benchmarks.on_gpu [--out FOLDER]`.

Needs no installation and no network: ramify is imported from this checkout, whatever its folder is called. Packages
that are not there (it says which) come from a folder of wheels, `--wheels FOLDER`, and go into a folder that is removed
at the end. First come the tests that compare the GPU with plain torch and transformers, then benchmarks/gpu.py. All
ends within `--seconds` (580), whatever hangs, and what was found until then is in the folder: tests.txt, tests.xml,
gpu.txt, gpu.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What the engine, the tests and the peer import.
NEEDED = (
    "torch", "numpy", "lark", "msgspec", "safetensors", "tokenizers", "llguidance", "jinja2", "pytest", "hypothesis",
    "transformers",
)  # fmt: skip
TESTS = (
    "tests/cuda",
    "tests/runtime/test_kernels.py",
    "tests/runtime/test_triton_model.py",
    "tests/runtime/test_copies.py",
)
# What the tests may take of the time.
_TEST_SHARE = 0.33
# Between the signal that asks a process to end and the one that ends it.
_GRACE_SECONDS = 10.0
# Kernels are compiled on the host, in as many processes.
_TEST_PROCESSES = 8


def main() -> None:
    """Run both, and say how they ended."""
    arguments = _arguments()
    ends_at = time.time() + arguments.seconds
    out = Path(arguments.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment(Path(folder), arguments.wheels)
        tests = _pytest(out / "tests.xml", arguments.tests)
        passed = _run(tests, out / "tests.txt", environment, arguments.seconds * _TEST_SHARE)
        left = ends_at - time.time()
        measure = [sys.executable, "-m", "benchmarks.gpu", "--json", str(out / "gpu.json"), *arguments.gpu.split()]
        measure += ["--seconds", f"{left - _GRACE_SECONDS:.0f}"]
        measured = _run(measure, out / "gpu.txt", environment, left)
    print(f"tests: {_how(passed)}. benchmark: {_how(measured)}. All of it is in {out}")
    if not (passed and measured):
        raise SystemExit(1)


def _how(went_well: bool) -> str:
    return "went well" if went_well else "FAILED"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="ramify's GPU tests and its GPU benchmark, in one go")
    parser.add_argument("--out", default=os.environ.get("OUT", "build/gpu"), help="where all goes (default: $OUT)")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="wheels of packages that are not installed")
    parser.add_argument("--seconds", type=float, default=580.0, help="when all must have ended")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="which tests")
    parser.add_argument("--gpu", default="", metavar="ARGUMENTS", help="arguments for benchmarks.gpu, in one word")
    return parser.parse_args()


def _environment(folder: Path, wheels: Path | None) -> dict[str, str]:
    """The environment in which `ramify` is this checkout. Ends the program if a package is missing."""
    (folder / "ramify").symlink_to(ROOT, target_is_directory=True)
    paths = [str(folder), str(ROOT)]
    if wheels is not None:
        _install(wheels, folder / "site")
        paths.append(str(folder / "site"))
    paths += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    code = f"from importlib.util import find_spec; print(*[name for name in {NEEDED!r} if find_spec(name) is None])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    if missing := done.stdout.split():
        raise SystemExit(f"not installed: {', '.join(missing)}; --wheels FOLDER names a folder with their wheels")
    return environment


def _install(wheels: Path, target: Path) -> None:
    """Only what is not there, and nothing that it depends on: the machine's own torch stays."""
    files = [str(file) for file in sorted(wheels.glob("*.whl")) if not _is_installed(file)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    if files:
        subprocess.run([*pip, *files], check=True)


def _is_installed(wheel: Path) -> bool:
    """Whether there is a package of the wheel's name, in whatever version."""
    return importlib.util.find_spec(wheel.name.partition("-")[0]) is not None


def _pytest(report: Path, tests: list[str]) -> list[str]:
    """Warnings are shown and fail nothing: a newer torch's should not hide what works."""
    command = [sys.executable, "-m", "pytest", "-v", "-rfEs", "--tb=short", "-W", "default", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(_TEST_PROCESSES)]
    return [*command, f"--junitxml={report}", *(test for test in tests if (ROOT / test.partition("::")[0]).exists())]


def _run(command: list[str], log: Path, environment: dict[str, str], seconds: float) -> bool:
    """Runs a command in the checkout, its output on the screen and in a file; whether it ended well and in time."""
    print("$", " ".join(command), flush=True)
    with (
        log.open("w") as file,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process,
        _ended_after(process, seconds),
    ):
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            file.write(line)
        process.wait()
    return process.returncode == 0


@contextmanager
def _ended_after(process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    """Interrupts a process so that it says what it has found, and then ends it and all that it has started."""

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timers = [
        threading.Timer(max(seconds - _GRACE_SECONDS, 0.0), process.send_signal, [signal.SIGINT]),
        threading.Timer(seconds, kill),
    ]
    for timer in timers:
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        kill()


if __name__ == "__main__":
    main()
