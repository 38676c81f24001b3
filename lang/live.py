"""Shows a run on a terminal: what is being said lives at the bottom, what has been said stays above it."""

from __future__ import annotations

from typing import IO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ..runtime.generation import StreamEvent
from .transcript import Branch, Transcript, Turn

_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red")
_TAIL_CHARACTERS = 4000
_FRAMES_PER_SECOND = 12


class LiveView:
    """All branches at once: each turn's last lines while it grows, the whole turn once it is over."""

    def __init__(self, file: IO[str]) -> None:
        self._console = Console(file=file, highlight=False)
        self._transcript = Transcript()
        self._branches: set[Branch] = set()
        self._live = Live(
            console=self._console,
            get_renderable=self._picture,
            refresh_per_second=_FRAMES_PER_SECOND,
            transient=True,
        )
        self._live.start()

    def __call__(self, event: StreamEvent) -> None:
        """Take an event."""
        if event.branch not in self._branches:
            self._branches.add(event.branch)
            self._keep_what_came_before(event.branch)
        for turn in self._transcript.feed(event):
            if turn.over:
                self._keep(turn)

    def close(self) -> None:
        """Keep what is left, and give the terminal back."""
        for turn in self._transcript.finish():
            self._keep(turn)
        self._live.stop()

    def _keep_what_came_before(self, branch: Branch) -> None:
        """A branch begins: what those it forked from have said so far stands above all that it will say."""
        for turn in list(self._transcript.current.values()):
            if turn.branch == branch[: len(turn.branch)]:
                self._keep(turn)

    def _keep(self, turn: Turn) -> None:
        pieces = turn.pieces[turn.shown :]
        turn.shown += len(pieces)
        if pieces:
            self._console.print(_painted(turn, pieces))

    def _picture(self) -> Group:
        # Called on the Live's own thread: only snapshots are looked at.
        if not self._branches:
            return Group(Text("starting ...", style="dim"))
        turns = [turn for turn in list(self._transcript.current.values()) if turn.pieces[turn.shown :]]
        room = max(2, (self._console.height - 2) // max(1, len(turns)))
        return Group(*(self._tail(turn, room) for turn in turns))

    def _tail(self, turn: Turn, room: int) -> Text:
        pieces, length = [], 0
        for text, generated in reversed(turn.pieces[turn.shown :]):
            pieces.append((text[-_TAIL_CHARACTERS:], generated))
            length += len(text)
            if length > _TAIL_CHARACTERS:
                break
        lines = _painted(turn, pieces[::-1]).wrap(self._console, self._console.width)
        return Text("\n").join(list(lines)[-room:])


def _painted(turn: Turn, pieces: list[tuple[str, bool]]) -> Text:
    """The label in the branch's colour, the program's text dim, generated text bright."""
    colour = _COLOURS[sum(turn.branch) % len(_COLOURS)] if turn.branch else "white"
    painted = Text(f"{turn.label}: " if turn.label else "", style=f"bold {colour}" if turn.label else "")
    whole = Text()
    whole.append_text(painted)
    for text, generated in pieces:
        whole.append(printable(text), style=colour if generated else "dim")
    whole.rstrip()
    return whole


def printable(text: str) -> str:
    """The text with escapes for control characters: what a model writes must not steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" or ord(c) > 0xFF else repr(c)[1:-1] for c in text)
