"""Engines that benchmarks compare, each in a process of its own that stands still while the others are measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .report import say

HERE = Path(__file__).parent


class Worker:
    """An engine in a process of its own, which stands still unless it is asked."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._read()  # it is ready
        self._signal(signal.SIGSTOP)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """What it answers. Raises RuntimeError when it has ended."""
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        answer = self._read()
        self._signal(signal.SIGSTOP)
        return answer

    def close(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)
        self._process.communicate()  # waits, and closes the pipes

    def _signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"{self.name} has ended")


@contextmanager
def started(engine: str, kind: str, checkpoint: Path) -> Iterator[Worker]:
    """The worker `kind`_NAME.py of this folder, for an engine NAME[+OPTION][=PYTHON] with a Python of its own."""
    name, _, python = engine.partition("=")
    say(f"starting {name}")
    script, *options = name.split("+")
    worker = Worker(name, [python or sys.executable, str(HERE / f"{kind}_{script}.py"), str(checkpoint), *options])
    try:
        yield worker
    finally:
        worker.close()
