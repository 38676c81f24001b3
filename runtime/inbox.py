"""What is left for the thread of an engine to do.

The thread waits on this and not on its engine, so that an engine which nobody uses any more is freed: it closes its
inbox then, and the thread ends.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Inbox:
    """A queue of commands, which can be closed. Thread-safe."""

    def __init__(self) -> None:
        self.is_closed = False
        self._commands: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition(threading.RLock())  # closed by whatever collects garbage, so maybe inside

    def __len__(self) -> int:
        return len(self._commands)

    def put(self, command: Callable[[], None]) -> bool:
        """Leave a command; False when nobody will carry it out."""
        with self._changed:
            if self.is_closed:
                return False
            self._commands.append(command)
            self._changed.notify_all()
            return True

    def carry_out(self) -> None:
        """Carry out all that was left."""
        while self._commands:
            self._commands.popleft()()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until there is a command, or the end, or for so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._commands or self.is_closed, seconds)

    def close(self) -> None:
        """Take no more commands."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()
