"""What the runtime asks of a backend: generate after a prompt, choose among texts, say how chat messages are marked.

A backend gets whole prompts (runtime/prompt.py) and turns them into what it needs: token ids, text or messages. All
values a prompt waits for have arrived by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from .request import Event, SamplingParams

if TYPE_CHECKING:
    from .prompt import Prompt


class Chat(Protocol):
    """How chat messages are marked in text; `index` counts a prompt's messages, `previous` is the role before.

    assistant_lead: what the format puts before the text of a finished assistant message, and a model generates itself.
    """

    @property
    def assistant_lead(self) -> str: ...
    def opening(self, role: str, index: int, previous: str | None = None) -> str: ...
    def closing(self, role: str) -> str: ...


class Sink(Protocol):
    """Takes the events of one request, on the loop thread. Deltas may be left out unless `wants_deltas`."""

    @property
    def wants_deltas(self) -> bool: ...
    def __call__(self, event: Event) -> None: ...


class Handle(Protocol):
    """A request in flight."""

    def cancel(self) -> None:
        """Ask for its end; a last event still comes. Thread-safe, and harmless when it is over."""


class Backend(Protocol):
    """A place where programs are executed. All methods are thread-safe and return at once."""

    @property
    def name(self) -> str: ...
    @property
    def chat(self) -> Chat: ...
    @property
    def features(self) -> frozenset[str]:
        """What it can do beyond plain generation: names of runtime/features.py. The rest is refused at the append."""

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Sink) -> Handle:
        """Generate text after the prompt; `sink` gets Deltas and at last Done or Failed."""

    def select(self, prompt: Prompt, choices: Sequence[str], method: str, sink: Sink) -> Handle:
        """Choose one of the texts as a continuation; `sink` gets a Done whose text is the choice, or Failed."""

    def close(self) -> None:
        """Release what the backend holds; requests in flight fail."""
