"""Compiles native.cpp for the machine at hand, once, and loads it.

The library is kept in the user's cache folder under a name that depends on the source, the compiler's arguments and
the processor. It is linked without a runtime of OpenMP, so that it uses the one that torch has loaded, and with it
torch's threads: two sets of threads would take the cores from one another.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

# What the kernels call the dtypes that they are compiled for.
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
SOURCE = Path(__file__).with_name("native.cpp")
_COMPILE = [
    *("-c", "-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp"),
    *("-fno-math-errno", "-fno-trapping-math", "-w"),
]
_SECONDS = 120
_log = logging.getLogger(__name__)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they are switched off (RAMIFY_NATIVE=0) or cannot be had.

    Compiled if need be, which takes seconds; CXX names the compiler. Without one a warning is logged, once, and torch's
    operations serve.
    """
    if os.environ.get("RAMIFY_NATIVE", "1") == "0":
        return None
    try:
        return ctypes.CDLL(str(_built()))
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("no native CPU kernels, so decoding is slower: %s", _reason(error))
        return None


def typed(function: ctypes._FuncPointer, num_pointers: int, *rest: type) -> ctypes._FuncPointer:
    """A function of the library that takes so many addresses and then the rest, and returns nothing."""
    function.argtypes = [*[ctypes.c_void_p] * num_pointers, *rest]
    function.restype = None
    return function


def _built() -> Path:
    """The library for this source, compiler and processor, compiled unless it is there."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
    if compiler is None:
        raise FileNotFoundError("there is no C++ compiler (g++, clang++ or what CXX names)")
    key = "\0".join([SOURCE.read_text(), compiler, *_COMPILE, _processor()])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ramify"
    target = cache / f"native-{hashlib.sha256(key.encode()).hexdigest()[:20]}.so"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        _build(compiler, target)
    return target


def _build(compiler: str, target: Path) -> None:
    _log.info("compiling the CPU kernels, once")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        part, whole = Path(folder) / "native.o", Path(folder) / "native.so"
        for command in (
            [compiler, *_COMPILE, str(SOURCE), "-o", str(part)],
            [compiler, "-shared", str(part), "-o", str(whole)],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
        os.replace(whole, target)  # at once, since others may be building it too


def _processor() -> str:
    """What tells processors apart that need other instructions: a home folder may be shared by many machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(("model name", "flags", "Features"))))


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{' '.join(error.cmd)} failed:\n{error.stderr[-500:]}"
    return str(error)
