"""A run's part of a recording, as the runtime sees it: what is told of every answer, and may give one itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..ir.core import Op
from .backend import Handle
from .request import Event

if TYPE_CHECKING:
    from .generation import Generation
    from .host import HostOp
    from .prompt import Prompt
    from .toolcall import ToolCall


class Track(Protocol):
    """Records a run, or plays one that was recorded, or both. cassette: what it is a part of."""

    cassette: Any

    def ask(self, samples: Sequence[Generation]) -> None:
        """The program has asked for these samples of one generation. On any thread, in the program's order."""

    def send(self, generation: Generation) -> Handle:
        """Answer a request from the recording, or send it to the backend; its prompt is complete. On the loop."""

    def heard(self, generation: Generation, event: Event) -> None:
        """An event of a request has come. On the loop."""

    def read(self, generation: Generation) -> None:
        """The program has asked for what was generated. On any thread, in the program's order."""

    def hosted(self, op: Op, host: HostOp, branch: tuple[int, ...]) -> Callable[[Sequence[Any]], Any]:
        """Host code that may do more than compute, so that what it gives is recorded, or is what was recorded.

        branch: that of the state with which its strand began. On the loop.
        """

    async def arranged(
        self, start: Prompt, texts: Sequence[str], arrange: Callable[[], Awaitable[list[int]]]
    ) -> list[int]:
        """In which order the items of an unordered group stand that began at `start`: as recorded, else as `arrange`
        says. In a Routine.
        """

    def recorded_order(self, start: Prompt, texts: Sequence[str]) -> list[int] | None:
        """The order that was recorded for these items; None where there is none."""

    def call(self, call: ToolCall) -> bool:
        """A tool is about to be called; whether the recording has answered instead. On any thread."""
