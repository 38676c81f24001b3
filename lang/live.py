"""Shows a run on a terminal: what is being said lives at the bottom, what has been said stays above it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from ..runtime.generation import StreamEvent
from .transcript import Branch, Transcript, Turn

_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red")
_TAIL_CHARACTERS = 4000
_FRAMES_PER_SECOND = 12


class TurnsView:
    """Prints each turn once it is over. Branches get colours in the order in which they come."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._transcript = Transcript()
        self._colours: dict[Branch, str] = {}

    def __call__(self, event: StreamEvent) -> None:
        """Take an event."""
        if event.branch not in self._colours:
            self._colours[event.branch] = self._next_colour() if event.branch else "white"
            self._keep_what_came_before(event.branch)
        for turn in self._transcript.feed(event):
            if turn.over:
                self._keep(turn)

    def close(self) -> None:
        """Keep what is left."""
        for turn in self._transcript.finish():
            self._keep(turn)

    def within(self) -> TurnsView:
        """A view of a run that goes on inside of this one."""
        return TurnsView(self._console)

    def _next_colour(self) -> str:
        number = sum(map(bool, self._colours))  # the first state is no branch
        bright = "bright_" if number // len(_COLOURS) % 2 else ""
        return bright + _COLOURS[number % len(_COLOURS)]

    def _keep_what_came_before(self, branch: Branch) -> None:
        """A branch begins: what those it forked from have said so far stands above all that it will say."""
        for turn in list(self._transcript.current.values()):
            if turn.branch == branch[: len(turn.branch)]:
                self._keep(turn)

    def _keep(self, turn: Turn) -> None:
        pieces = turn.pieces[turn.shown :]
        turn.shown += len(pieces)
        if pieces:
            self._console.print(self._painted(turn, pieces))

    def _painted(self, turn: Turn, pieces: list[tuple[str, bool]]) -> Text:
        """The label in the branch's colour, the program's text dim, generated text bright."""
        colour = self._colours[turn.branch]
        whole = Text()
        if turn.label:
            whole.append(f"{turn.label}: ", style=f"bold {colour}")
        for text, generated in pieces:
            whole.append(printable(text), style=colour if generated else "dim")
        whole.rstrip()
        return whole


class LiveView(TurnsView):
    """All branches at once: each turn's last lines while it grows, the whole turn once it is over."""

    def __init__(self, file: IO[str]) -> None:
        super().__init__(Console(file=file, highlight=False))
        self._live = _Reflowed(self._console, self._picture)
        self._live.start()

    def close(self) -> None:
        """Keep what is left, and give the terminal back."""
        super().close()
        self._live.stop()

    def _picture(self) -> list[Text]:
        # Called on the Live's own thread: only snapshots are looked at.
        if not self._colours:
            return [Text("starting ...", style="dim")]
        turns = [turn for turn in list(self._transcript.current.values()) if turn.pieces[turn.shown :]]
        height = self._console.height - 1
        room = max(2, (height - 1) // max(1, len(turns)))
        return [line for turn in turns for line in self._tail(turn, room)][-height:]

    def _tail(self, turn: Turn, room: int) -> list[Text]:
        pieces, length = [], 0
        for text, generated in reversed(turn.pieces[turn.shown :]):
            pieces.append((text[-_TAIL_CHARACTERS:], generated))
            length += len(text)
            if length > _TAIL_CHARACTERS:
                break
        lines = self._painted(turn, pieces[::-1]).wrap(self._console, self._console.width)
        return list(lines)[-room:]


class _Lines:
    """Lines that fit the terminal. widths: of those that were drawn last."""

    def __init__(self) -> None:
        self.lines: Sequence[Text] = ()
        self.widths: list[int] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.widths = [line.cell_len for line in self.lines]
        if self.lines:
            yield Text("\n", no_wrap=True, overflow="ignore").join(self.lines)


class _Reflowed(Live):
    """A Live that erases all of what it drew when the terminal has become narrower, and has broken its lines.

    picture: gives the lines to draw, none wider than the terminal.
    """

    def __init__(self, console: Console, picture: Callable[[], list[Text]]) -> None:
        self._drawn = _Lines()
        self._picture = picture
        super().__init__(
            console=console, get_renderable=self._draw, refresh_per_second=_FRAMES_PER_SECOND, transient=True
        )

    def _draw(self) -> _Lines:
        self._drawn.lines = self._picture()
        return self._drawn

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """See Live, which goes back over as many lines as it drew."""
        width = max(1, self.console.width)
        num_more = sum(max(0, (drawn - 1) // width) for drawn in self._drawn.widths)
        up = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)) * num_more
        back = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *up)
        return (
            [back, *super().process_renderables(renderables)] if num_more else super().process_renderables(renderables)
        )


def printable(text: str) -> str:
    """The text with escapes for control characters: what a model writes must not steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" or ord(c) > 0xFF else repr(c)[1:-1] for c in text)
