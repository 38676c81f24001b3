"""What the runs of a session are recorded to or played from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..backends.replay.cassette import Cassette


@dataclass(frozen=True, slots=True)
class Tape:
    """how: "recorded to" or "played from" the file."""

    path: Path
    how: str
    cassette: Cassette

    @property
    def told(self) -> str:
        """What is done, and how that ends."""
        return f"runs are {self.how} {self.path}; {self.ends} ends that"

    @property
    def ends(self) -> str:
        """The command that ends it."""
        return ":record off" if self.how == "recorded to" else ":replay off"
