"""A terminal to type into, and what is typed in many tests."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable

HELLO = """\
@rf.program
def hello(s, who):
    s += rf.user("Hi " + who)
    s += rf.assistant(rf.gen("a"))
    return s["a"]

"""


Type = Callable[[str], str]


class Tmux:
    """A terminal of 100 by 40 characters."""

    def __init__(self, command: str) -> None:
        # Python's readline, which tests import, sets COLUMNS for all children; it would hide the terminal's own width.
        self._call = ["tmux", "-L", f"ramify-test-{os.getpid()}", "-f", os.devnull]
        self._run("new-session", "-d", "-s", "repl", "-x", "100", "-y", "40", f"unset COLUMNS LINES; {command}")

    def _run(self, *words: str) -> str:
        return subprocess.run([*self._call, *words], capture_output=True, text=True, check=True).stdout

    def keys(self, *keys: str) -> None:
        self._run("send-keys", "-t", "repl", *keys)

    def wait_for(self, wanted: str) -> str:
        """The screen, once the pattern is on it."""
        deadline = time.monotonic() + 60
        while not re.search(wanted, screen := self._run("capture-pane", "-p", "-t", "repl"), re.MULTILINE):
            assert time.monotonic() < deadline, f"{wanted!r} is not on the screen:\n{screen}"
            time.sleep(0.05)
        return screen

    def coloured(self, wanted: str) -> str:
        """The same with the terminal's escapes for colours."""
        self.wait_for(wanted)
        return self._run("capture-pane", "-p", "-e", "-t", "repl")

    def paste(self, text: str) -> None:
        """Paste text, with the marks around it that a program has asked the terminal for."""
        self._run("set-buffer", text)
        self._run("paste-buffer", "-p", "-t", "repl")

    def resize(self, columns: int) -> None:
        """Make it as wide as so many characters."""
        self._run("resize-window", "-t", "repl", "-x", str(columns), "-y", "40")

    def end(self) -> None:
        subprocess.run([*self._call, "kill-server"], capture_output=True)
