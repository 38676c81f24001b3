"""What the runtime asks of a backend: generate after a prompt, score texts, say how chat messages are marked.

A backend gets whole prompts (runtime/prompt.py) and turns them into what it needs: token ids, text or messages. All
values a prompt waits for have arrived by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from .request import Event, SamplingParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .chat import ChatFormat
    from .prompt import Prompt
    from .sharing import Sharing
    from .uses import Use


# Of which tokens a prompt's hidden state is: its last one, or the mean of all from some position on.
Pooling = Literal["last", "mean"]


class Sink(Protocol):
    """Takes the events of one request, on the loop thread. Deltas may be left out unless `wants_deltas`.

    sharing: where equal requests may be found, whose answer will do; None if it will not. use: what the request means
    to its run, for a backend that keeps KV.
    """

    @property
    def wants_deltas(self) -> bool: ...
    @property
    def sharing(self) -> Sharing | None: ...
    @property
    def use(self) -> Use: ...
    def __call__(self, event: Event) -> None: ...


class Handle(Protocol):
    """A request in flight."""

    def cancel(self) -> None:
        """Ask for its end; a last event still comes. Thread-safe, and harmless when it is over."""


class Backend(Protocol):
    """A place where programs are executed. All methods are thread-safe and return at once.

    One with the feature "score" is a Scorer, one with "select" and without "score" is a Selector, one with "prefill" a
    Prefiller, one with "embed" an Embedder. `reasons`, if it has
    that, says for missing features why they are and what to do; `prices` (runtime/prices.py) what requests cost.
    """

    @property
    def name(self) -> str: ...
    @property
    def chat(self) -> ChatFormat:
        """How chat messages are written as text."""

    @property
    def features(self) -> frozenset[str]:
        """What it can do beyond plain generation: names of runtime/features.py. The rest is refused at the append."""

    def generate(self, prompt: Prompt, params: SamplingParams, sink: Sink) -> Handle:
        """Generate text after the prompt; `sink` gets Deltas and at last Done or Failed."""

    def close(self) -> None:
        """Release what the backend holds; requests in flight fail."""


class Scorer(Protocol):
    """A backend that knows log-probabilities; choices are made from them (runtime/choices.py)."""

    def score(self, prompt: Prompt, texts: Sequence[str], sink: Sink, *, unconditional: bool = False) -> Handle:
        """Score each text as a continuation; `sink` gets a Done with `scores`, one for each text in order, or Failed.

        unconditional: also score each text's tokens after no more than the beginning-of-text token. A model without one
        has nothing to judge a first token by: its unconditional log-probability is 0.
        """


class Prefiller(Protocol):
    """A backend that keeps KV and can compute it ahead of a request, while it has nothing else to do."""

    def prefill(self, prompt: Prompt, *, is_open: bool, is_brief: bool) -> Handle:
        """A request may come that begins with this prompt. is_open: whether more text may follow before it. is_brief:
        whether it comes as soon as another request is done.

        Nothing has to be done, and nothing is told of it; what does not work is left undone.
        """


class Embedder(Protocol):
    """A backend that tells hidden states."""

    def embed(
        self, prompts: Sequence[str | Prompt], *, pooling: Pooling = "last", start: int = 0
    ) -> NDArray[np.float32]:
        """The final hidden state of each prompt, behind the model's final norm: (len(prompts), hidden_size).

        That of its last token, or the mean over its tokens from number `start` on. Waits for them all.
        """


class Selector(Protocol):
    """A backend that can only choose, in a way of its own."""

    def select(self, prompt: Prompt, choices: Sequence[str], sink: Sink) -> Handle:
        """Choose one of the texts as a continuation; `sink` gets a Done whose text is the choice, or Failed."""
