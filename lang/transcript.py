"""A run's stream of events as turns: what one branch says in one chat message, or outside of any."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..runtime.generation import StreamEvent

Branch = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Turn:
    """Pieces of text of one branch under one role (None: outside of messages), each generated or not.

    shown: how many pieces a view has written.
    """

    branch: Branch
    role: str | None
    pieces: list[tuple[str, bool]] = field(default_factory=list)
    over: bool = False
    shown: int = 0

    @property
    def label(self) -> str:
        """The branch and the role, as "0.1 user"; empty for text of the first state outside of messages."""
        return " ".join(filter(None, [branch_label(self.branch), self.role]))


def branch_label(branch: Branch) -> str:
    """The path of fork numbers as people write it."""
    return ".".join(map(str, branch))


def branch_name(branch: Branch) -> str:
    """The branch in a sentence."""
    return f"branch {branch_label(branch)}" if branch else "the first state"


class Transcript:
    """The turn that each branch is in."""

    def __init__(self) -> None:
        self.current: dict[Branch, Turn] = {}

    def feed(self, event: StreamEvent) -> list[Turn]:
        """Take an event; gives the turns that it touched: one that ended first, then the one that goes on.

        Samples after a gen's first are no part of what is said.
        """
        if event.sample:
            return []
        turn = self.current.get(event.branch)
        if event.kind == "role":
            touched = [self._end(turn)] if turn is not None else []
            if event.name == "begin":
                self.current[event.branch] = Turn(event.branch, event.text)
            return touched
        if turn is None:
            turn = self.current[event.branch] = Turn(event.branch, None)
        turn.pieces.append((event.text, event.kind != "text"))
        return [turn]

    def finish(self) -> list[Turn]:
        """End what is still open."""
        return [self._end(turn) for turn in list(self.current.values())]

    def _end(self, turn: Turn) -> Turn:
        turn.over = True
        del self.current[turn.branch]
        return turn
