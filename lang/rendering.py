"""How a run is shown as it goes, and what is said of it at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, Protocol

from ..runtime.context import Usage
from ..runtime.generation import StreamEvent
from .plain import to_json
from .transcript import Transcript, Turn

if TYPE_CHECKING:
    from ..backends.replay.reuse import Reuse

_SILENCE_SECONDS = 1.0


class View(Protocol):
    """Shows a run: called with its events, on one thread; `close` ends the showing."""

    def __call__(self, event: StreamEvent) -> None: ...
    def close(self) -> None: ...
    def within(self) -> View:
        """A view of a run that goes on inside of this one's program, or beside it."""
        ...


def open_view(file: IO[str]) -> View:
    """The view that fits where it writes: live and in colour on a terminal, else plain text."""
    if not file.isatty():
        return PlainView(file)
    from .live import LiveView

    return LiveView(file)


class _Page:
    """What is written to a file, by one view or by several on different threads: each turn begins a line."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._writing = threading.Lock()
        self._last_written: Turn | None = None
        self._at_line_start = True

    def write(self, turn: Turn, text: str) -> None:
        """More of a turn."""
        with self._writing:
            if text and self._last_written is not turn:
                self._last_written = turn
                self._end_line()
                self._put(f"[{turn.label}] " if turn.label else "")
            self._put(text)

    def end_line(self) -> None:
        """What follows begins a line."""
        with self._writing:
            self._end_line()
            self._file.flush()

    def flush(self) -> None:
        """See IO."""
        self._file.flush()

    def _end_line(self) -> None:
        if not self._at_line_start:
            self._put("\n")

    def _put(self, text: str) -> None:
        if text:
            self._file.write(text)
            self._at_line_start = text.endswith("\n")


class PlainView:
    """Writes turns as text, each under its label.

    One turn is written as it grows; those of other branches wait until it is over, or has been silent for a second.
    """

    def __init__(self, file: IO[str] | _Page, clock: Callable[[], float] = time.monotonic) -> None:
        self._page = file if isinstance(file, _Page) else _Page(file)
        self._clock = clock
        self._transcript = Transcript()
        self._speaker: Turn | None = None
        self._waiting: list[Turn] = []
        self._last_heard = clock()

    def __call__(self, event: StreamEvent) -> None:
        """Take an event."""
        for turn in self._transcript.feed(event):
            self._show(turn)
        self._page.flush()

    def close(self) -> None:
        """Write what is left, and end the line."""
        for turn in self._transcript.finish():
            self._show(turn)
        self._pass_on()
        self._page.end_line()

    def within(self) -> PlainView:
        """See View."""
        return PlainView(self._page, self._clock)

    def _show(self, turn: Turn) -> None:
        now = self._clock()
        if self._speaker is not None and turn is not self._speaker:
            if turn not in self._waiting:
                self._waiting.append(turn)
            if now - self._last_heard > _SILENCE_SECONDS:
                self._pass_on()
            return
        self._last_heard = now
        self._speaker = turn
        self._write(turn)
        if turn.over:
            self._pass_on()

    def _pass_on(self) -> None:
        """Let the turns speak that have waited: those that are over, then the first of the others."""
        self._speaker = None
        waiting, self._waiting = self._waiting, []
        for turn in sorted(waiting, key=lambda turn: not turn.over):
            if self._speaker is not None:
                self._waiting.append(turn)
                continue
            self._write(turn)
            if not turn.over:
                self._speaker, self._last_heard = turn, self._clock()

    def _write(self, turn: Turn) -> None:
        text = "".join(text for text, _ in turn.pieces[turn.shown :])
        turn.shown = len(turn.pieces)
        self._page.write(turn, text)


def value_text(value: Any) -> str:
    """A program's value for people and pipes: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else to_json(value).decode()


def usage_line(usage: Usage) -> str:
    """What a run used, in one line."""
    return f"{tokens_line(usage)}, {seconds(usage.wall_ms)}"


def tokens_line(usage: Usage) -> str:
    """Its tokens and calls, without the time."""
    share = f" ({usage.cached_tokens / usage.prompt_tokens:.0%})" if usage.prompt_tokens else ""
    cost = "" if usage.cost is None else f", cost {usage.cost:,.4g}"
    return (
        f"prompt {_count(usage.prompt_tokens, 'token')}, {usage.cached_tokens:,} cached{share}, "
        f"generated {_count(usage.generated_tokens, 'token')}, {_count(usage.calls, 'call')}{cost}"
    )


def reuse_line(reuse: Reuse) -> str:
    """How much of a run was asked anew, in one line."""
    told = f"re-ran {reuse.rerun_generations:,} of {_count(reuse.generations, 'generation')}"
    if reuse.tool_calls:
        told += f", {reuse.rerun_tool_calls:,} of {_count(reuse.tool_calls, 'tool call')}"
    if reuse.prompt_tokens:
        told += f"; {reuse.cached_tokens:,} of {_count(reuse.prompt_tokens, 'prompt token')} cached"
    return told


def seconds(milliseconds: float, *, digits: int = 0) -> str:
    """A time, short enough to read; digits: those behind the point of milliseconds."""
    return f"{milliseconds:.{digits}f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.2f} s"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
